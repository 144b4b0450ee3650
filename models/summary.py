"""The layers of a network as a text table."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from models import create_model, find_network
from models.attention import AttentionModule, SoftMask
from models.counting import Meter, count, metering
from models.options import MOST_PIXELS, check_integer
from models.staged import StagedNetwork

# torchinfo 1.8 was tried: it counts batch norm's parameters as multiply-adds, opens every module to one depth, and
# prints n equal units n times.
OPENED = (StagedNetwork, AttentionModule, SoftMask)
"""Modules whose parts have lines of their own, besides sequences of different parts; a residual unit is one line."""


@dataclass
class _Line:
    """A module with its output sizes and multiply-adds in a forward pass of one image."""

    name: str
    module: nn.Module
    parts: list[_Line] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    multiply_adds: int = 0

    @property
    def content(self) -> tuple[object, ...]:
        """The cells of the line, without the name."""
        return _kind(self.module), ", ".join(self.outputs), _parameters(self.module), self.multiply_adds

    @property
    def tree(self) -> tuple[object, ...]:
        """The content of this line and of all lines below it."""
        return self.content, tuple(part.tree for part in self.parts)


def describe(name: str, num_classes: int | None = None, image_size: int | None = None, **options: Any) -> str:
    """Return a table of the layers of a network: kind, size of the output, parameters and multiply-adds.

    Args:
        name: name of the network.
        num_classes: number of classes; default: that of the data set that the paper counts the network on.
        image_size: height and width in pixels; default: that of the same images.
        **options: options of an attention network; see `models.AttentionOptions`.

    Raises:
        ValueError: for an unknown network, a wrong option, or images that are too small for it.
    """
    network = find_network(name)
    classes = network.num_classes if num_classes is None else num_classes
    size = network.image_size if image_size is None else image_size
    check_integer("image_size", size, 1, MOST_PIXELS)
    lines = _measure(create_model(name, classes, device="meta", **options), size)
    table = Table(
        "layer", "kind", title=f"{name}, {classes} classes, {size}x{size} pixels", box=None, title_justify="left"
    )
    for heading in ("output", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for label, line in _rows(lines):
        kind, output, parameters, multiply_adds = line.content
        table.add_row(label, str(kind), str(output), f"{parameters:,}", f"{multiply_adds:,}")
    counts = count(name, classes, size, **options)
    summary = (
        f"{counts.parameters:,} parameters, {counts.multiply_adds:,} multiply-adds, trunk depth {counts.trunk_depth}, "
        f"{counts.activation_bytes / 2**20:.1f} MiB of activations per image in float32"
    )
    reading = [f"our reading: {network.our_reading}"] if network.our_reading else []
    return "\n".join([_plain(table), "", summary, *reading])


def _measure(model: nn.Module, size: int) -> list[_Line]:
    """Return the lines of a network on the meta device, completed by a forward pass."""
    lines = _lines(model)
    with ExitStack() as stack:
        meter = stack.enter_context(metering(model))
        for line in _walk(lines):
            _watch(line, meter, stack)
        model(torch.empty(1, 3, size, size, device="meta"))
    return lines


def _lines(module: nn.Module) -> list[_Line]:
    """Return one line for each part of a module; the parts of a ModuleList stand in its place."""
    lines = []
    for name, part in module.named_children():
        if isinstance(part, nn.Identity):
            continue
        if isinstance(part, nn.ModuleList) and type(part) is nn.ModuleList:
            lines += [_Line(f"{name}.{line.name}", line.module, line.parts) for line in _lines(part)]
        else:
            lines.append(_Line(name, part, _lines(part) if _opens(part) else []))
    return lines


def _opens(module: nn.Module) -> bool:
    return isinstance(module, OPENED) or (isinstance(module, nn.Sequential) and not _kind(module))


def _kind(module: nn.Module) -> str:
    """Return the kind of a module, or of all parts of a sequence; "" for a sequence whose parts have lines."""
    if not isinstance(module, nn.Sequential):
        return type(module).__name__ + _window(module)
    kinds = [_kind(part) for part in module]
    same = len({(_kind(part), _parameters(part)) for part in module}) == 1
    if same and kinds[0]:
        return kinds[0] if len(kinds) == 1 else f"{len(kinds)} x {kinds[0]}"
    leaves = all(not list(part.children()) for part in module)
    return ", ".join(kinds) if leaves else ""


def _window(module: nn.Module) -> str:
    """Return kernel and stride of a convolution or pooling, such as " 3x3/2"."""
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return f" {height}x{width}" + (f"/{module.stride[0]}" if module.stride[0] != 1 else "")
    if isinstance(module, nn.MaxPool2d):
        return f" {module.kernel_size}x{module.kernel_size}/{module.stride}"
    return ""


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _walk(lines: list[_Line]) -> Iterator[_Line]:
    for line in lines:
        yield line
        yield from _walk(line.parts)


def _watch(line: _Line, meter: Meter, stack: ExitStack) -> None:
    """Register hooks that complete the line in a forward pass; a module used several times has several outputs."""

    def before(_module: nn.Module, _inputs: Any) -> None:
        line.multiply_adds -= meter.multiply_adds

    def after(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        line.multiply_adds += meter.multiply_adds
        line.outputs.append("x".join(map(str, output.shape[1:])))

    stack.enter_context(line.module.register_forward_pre_hook(before))
    stack.enter_context(line.module.register_forward_hook(after))


def _rows(lines: list[_Line], indent: str = "") -> Iterator[tuple[str, _Line]]:
    """Yield label and line of each row; neighbours with the same content share one row."""
    for _, group in groupby(lines, key=lambda line: (line.tree, line.name if "." in line.name else "")):
        first, *others = group
        yield indent + (f"{first.name}-{others[-1].name}" if others else first.name), first
        yield from _rows(first.parts, indent + "  ")


def _plain(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=200, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
