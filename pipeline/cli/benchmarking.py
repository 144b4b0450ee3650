"""Commands that measure speed, on request: no stage of DVC calls them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.cli.options import Commands, add_command, positive
from pipeline.utils.errors import UserError


def _benchmark(commands: Commands) -> None:
    help_ = "measure speed on this machine"
    group = commands.add_parser("benchmark", help=help_, description=f"{help_.capitalize()}.")
    kinds = group.add_subparsers(metavar="<what>", required=True)
    for add in BENCHMARKS:
        add(kinds)


def _add(
    kinds: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    what: str,
    *,
    only: str = "",
    blocks: str = "",
    limit: tuple[int, str],
) -> Any:
    """Add a benchmark with the options that several have.

    Args:
        what: what it measures; its table is ``benchmarks/<name>/<hardware>.csv``.
        only: help of ``--only``; empty for a benchmark without a choice of networks.
        blocks: default and help of ``--blocks``, e.g. "6 of steps"; empty for a benchmark without blocks.
        limit: default of ``--time-limit`` in seconds, and what it holds for.
    """
    command = add_command(kinds, name, run, f"{what}, into benchmarks/{name}/<hardware>.csv")
    command.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    if only:
        command.add_argument("--only", default="*", metavar="PATTERN", help=only)
    if blocks:
        number, help_ = blocks.split(" ", 1)
        command.add_argument(
            "--blocks", type=positive, default=int(number), metavar="N", help=f"{help_}; default: {number}"
        )
    seconds, of = limit
    help_ = f"seconds for one {of}; default: {seconds}"
    command.add_argument("--time-limit", type=positive, default=seconds, metavar="S", help=help_)
    return command


def _table(folder: Path, device: str) -> tuple[Path, str]:
    """Return the path of a benchmark's table, and the name of the hardware that it is of."""
    import torch

    from pipeline.benchmark.hardware import hardware_name, hardware_slug

    hardware = hardware_name(torch.device(device))
    return folder / f"{hardware_slug(hardware)}.csv", hardware


def _networks(kinds: Commands) -> None:
    command = _add(
        kinds,
        "networks",
        _run_networks,
        "latency and training throughput of every network",
        only="e.g. 'cifar_*'; the other rows stay",
        limit=(180, "network"),
    )
    command.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    command.add_argument("--channels-last", action="store_true", help="images and weights in that memory format")
    command.add_argument("--threads", type=positive, metavar="N", help="of the processor; default: all")
    command.add_argument("--repeats", type=positive, metavar="N", help="steps timed, at least; default: 7, on CUDA 30")
    command.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images of a training step; default: 16 for CIFAR networks and 2 for ImageNet's, on CUDA 64 and 32",
    )


def _run_networks(options: argparse.Namespace) -> None:
    import torch

    from pipeline.benchmark.networks import Settings, benchmark_networks

    settings = Settings(
        device=_device(options.device),
        threads=options.threads or torch.get_num_threads(),
        precision=options.precision,
        channels_last=options.channels_last,
        repeats=options.repeats,
        batch_size=options.batch_size,
    )
    print(benchmark_networks(settings, options.only, options.time_limit, report=lambda row: print(row, flush=True)))


def _training(kinds: Commands) -> None:
    _add(
        kinds,
        "training",
        _run_training,
        "our training loop against a plain one, in-process and under Ray Train",
        only="networks, e.g. '*attention56'",
        blocks="6 of steps; the first does not count",
        limit=(600, "measurement"),
    )


def _run_training(options: argparse.Namespace) -> None:
    from pipeline.benchmark import training

    _measure(options, training, training.benchmark_training)


def _packing(kinds: Commands) -> None:
    _add(
        kinds,
        "packing",
        _run_packing,
        "1, 2, 4 and 8 runs at once on a GPU, or on the cores",
        only="networks, e.g. '*attention56'",
        blocks="10 of steps of each run",
        limit=(600, "measurement"),
    )


def _run_packing(options: argparse.Namespace) -> None:
    from pipeline.benchmark import packing

    rows, device = _measure(options, packing, packing.benchmark_packing)
    print(packing.as_advice(rows, device))


def _measure(options: argparse.Namespace, kind: Any, benchmark: Callable[..., list[Any]]) -> tuple[list[Any], Any]:
    """Run a benchmark of networks, print each row as it comes, then the table, and write it; return rows and device.

    Args:
        kind: the benchmark's module, with NETWORKS, FOLDER and `as_markdown`.
    """
    from pipeline.benchmark.rates import write_rates

    def report(row: Any) -> None:
        print(kind.as_markdown([row]).split("\n")[-1], flush=True)

    device = _device(options.device)
    rows = benchmark(_chosen(kind.NETWORKS, options.only), device, options.blocks, options.time_limit, report)
    path, hardware = _table(kind.FOLDER, device)
    write_rates(path, rows, hardware=hardware)
    print(f"\n{kind.as_markdown(rows)}\n\n{path}")
    return rows, device


def _precision(kinds: Commands) -> None:
    command = _add(
        kinds,
        "precision",
        _run_precision,
        "the test error of a run of the plan in bfloat16 and in float32",
        limit=(3600, "run"),
    )
    command.add_argument("--experiment", default="attention56", help="an experiment of the plan")
    command.add_argument("--seeds", type=positive, default=5, metavar="N", help="0 ... N - 1 are trained; default: 5")


def _run_precision(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from pipeline.benchmark.precision import FOLDER, as_markdown, compare_precisions, write_errors
    from pipeline.launch.driver import Driver
    from pipeline.settings.plan import Plan
    from pipeline.utils.cores import available_cores

    driver, device = Driver(Plan.read(), Path.cwd()), _device(options.device)
    spec = driver.plan.run(options.experiment, 0).spec
    execution = replace(driver.execution(spec), folder=driver.store / ".precision")
    at_once = available_cores() // execution.threads if device == "cpu" else 1
    errors = compare_precisions(
        spec, execution, options.seeds, device, max(1, at_once), options.time_limit, report=print
    )
    path, hardware = _table(FOLDER, device)
    write_errors(path, errors, spec, hardware)
    print(f"\n{as_markdown(errors)}\n\n{path}")


def _loading(kinds: Commands) -> None:
    command = _add(
        kinds,
        "loading",
        _run_loading,
        "our image loader against ImageFolder and DataLoader",
        blocks="6 of batches; the first does not count",
        limit=(600, "loader"),
    )
    command.add_argument("--cores", type=positive, metavar="N", help="threads or processes that decode; default: all")
    command.add_argument("--batches", type=positive, default=8, metavar="N", help="of 64 images in a block; default: 8")


def _run_loading(options: argparse.Namespace) -> None:
    from tempfile import TemporaryDirectory

    from pipeline.benchmark.loading import BATCH, CROP, FOLDER, Job, as_line, benchmark_loading
    from pipeline.benchmark.rates import write_rates
    from pipeline.utils.cores import available_cores

    device = _device(options.device)
    with TemporaryDirectory() as scratch:
        job = Job(Path(scratch), device, options.cores or available_cores(), options.batches, options.blocks)
        rates = benchmark_loading(job, options.time_limit, lambda rate: print(as_line(rate), flush=True))
    path, hardware = _table(FOLDER, device)
    write_rates(path, rates, crop=CROP, batch_size=BATCH, hardware=hardware)
    print(path)


def _chosen(networks: Sequence[str], pattern: str) -> tuple[str, ...]:
    chosen = tuple(name for name in networks if fnmatchcase(name, pattern))
    if not chosen:
        raise UserError(f"--only {pattern!r}: fits none of {', '.join(networks)}")
    return chosen


def _device(name: str | None) -> str:
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no such device here; allowed is cpu")
    return name


BENCHMARKS = (_networks, _training, _packing, _precision, _loading)
COMMANDS = (_benchmark,)
