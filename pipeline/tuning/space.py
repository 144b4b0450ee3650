"""What a search varies, and between which limits: a YAML file, typed and checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Discriminator, Field, PlainValidator, Tag, field_validator, model_validator

from pipeline.settings import config
from pipeline.settings.reading import Settings, check, read_yaml
from pipeline.settings.tree import Config, NetworkOptions, Positive
from pipeline.utils.errors import UserError, shown
from pipeline.utils.names import NAME

SPACES = Path("conf/tune")
PROTOCOL: Final = ("learning_rate", "weight_decay", "momentum", "nesterov", "gamma", "padding", "flip")
MILESTONE: Final = re.compile(r"protocol\.milestones\.([1-9])")
DIGITS = 4  # significant ones, of a number that is drawn
LARGEST: Final = 2**53  # whole numbers up to it are exact as floats

Value = bool | int | float | str
Values = Mapping[str, Value]


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f"must be a number from -{LARGEST} to {LARGEST} (in YAML 1.0e-5 is one, 1e-5 is text)")
    return value


Number = Annotated[int | float, PlainValidator(_number)]


class Range(Settings):
    """A number between two limits, both included; an integer if both limits are."""

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _rises(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low}, high = {self.high}: low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low}: must be above 0 where log is true")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def tidy(self, value: Value) -> Value:
        """A drawn number as it is used and shown: a few significant digits, within the limits."""
        if self.is_integer:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    def contains(self, value: Value) -> bool:
        """Whether the space holds a value."""
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return False
        return not self.is_integer or float(value).is_integer()

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values at its edges."""
        return (self.low, self.high)


class Choice(Settings):
    """One of several values."""

    choices: Annotated[tuple[Value, ...], Field(min_length=2)]

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[Value, ...]) -> tuple[Value, ...]:
        if len(set(choices)) != len(choices):
            raise ValueError("each value may stand there once")
        return choices

    def tidy(self, value: Value) -> Value:
        """The value itself."""
        return value

    def contains(self, value: Value) -> bool:
        """Whether the space holds a value."""
        return value in self.choices

    @property
    def extremes(self) -> tuple[Value, ...]:
        """All of its values."""
        return self.choices


def _kind(content: Any) -> str:
    return (
        "choice" if isinstance(content, Choice) or (isinstance(content, Mapping) and "choices" in content) else "range"
    )


Parameter = Annotated[Annotated[Range, Tag("range")] | Annotated[Choice, Tag("choice")], Discriminator(_kind)]


class Stopping(Settings):
    """Asynchronous successive halving (ASHA, arXiv:1810.05934).

    At each rung, about one trial in `reduction_factor` continues. Rungs lie at a share 1 / `reduction_factor` of the
    iterations, at one `reduction_factor` times smaller, and so on, but none before the share `grace`.
    """

    grace: Annotated[float, Field(gt=0, lt=1)]
    reduction_factor: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _has_a_rung(self) -> Stopping:
        if self.grace * self.reduction_factor > 1:
            raise ValueError(
                f"grace = {self.grace:g}: must be at most 1 / reduction_factor = {1 / self.reduction_factor:.3g}, the"
                " last share of the iterations at which trials are compared"
            )
        return self

    def rungs(self, evaluations: Sequence[int]) -> tuple[int, ...]:
        """Iterations at which trials are compared: rising, each an evaluation, all before the last evaluation.

        Args:
            evaluations: the iterations after which a trial is evaluated, rising.
        """
        *possible, end = evaluations
        found, share = set(), 1 / self.reduction_factor
        while possible and share >= self.grace:
            found.add(min(possible, key=lambda iteration: abs(iteration - share * end)))
            share /= self.reduction_factor
        return tuple(sorted(found))


class Space(Settings):
    """A file of ``conf/tune/``."""

    trials: Positive
    stopping: Stopping
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]

    @field_validator("parameters")
    @classmethod
    def _known(cls, parameters: dict[str, Range | Choice]) -> dict[str, Range | Choice]:
        milestones = [int(match[1]) for name in parameters if (match := MILESTONE.fullmatch(name))]
        if milestones != list(range(1, len(milestones) + 1)):
            raise ValueError("protocol.milestones.1, .2 ... must stand there in this order, none left out")
        allowed = [f"protocol.{name}" for name in PROTOCOL] + [
            f"options.{name}" for name in NetworkOptions.model_fields
        ]
        for name in parameters:
            if name not in allowed and not MILESTONE.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot be searched; allowed: {', '.join(allowed)}, protocol.milestones.1 ..."
                )
        return parameters

    def misfit(self, values: Values) -> str | None:
        """Why values are not those of a trial in this space, in one line; None where they are."""
        if values.keys() != self.parameters.keys():
            return f"values: must have {', '.join(self.parameters)}"
        for name, value in values.items():
            if not self.parameters[name].contains(value):
                return f"values.{name} = {shown(value)}: not in the space of the search"
        return None

    @model_validator(mode="after")
    def _milestones_rise(self) -> Space:
        before = 0.0
        for name, parameter in self.parameters.items():
            if not MILESTONE.fullmatch(name):
                continue
            if not isinstance(parameter, Range) or not before <= parameter.low < parameter.high < 1:
                raise ValueError(
                    f"parameters.{name}: must be a range of shares of the iterations, from {before:g} (the end of the"
                    " one before) to less than 1"
                )
            before = float(parameter.high)
        return self


def load_space(name: str, root: Path = Path()) -> tuple[str, Space]:
    """A space by its name under ``conf/tune/``, or by the path of a file; its name (which names folders) and itself.

    Raises:
        UserError: one line that names the file, the key and what is allowed.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else root / SPACES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (root / SPACES).glob("*.yaml")))
        raise UserError(f"--space {name!r}: no file {path}; allowed are {known}, or the path of a YAML file")
    if not NAME.fullmatch(path.stem):
        raise UserError(f"--space {name!r}: {path.stem!r} is not a name (lower-case letters, digits, '-' and '_' only)")
    return path.stem, check(Space, read_yaml(path), str(path))


def override(values: Values, experiment: str, iterations: int) -> dict[str, Any]:
    """Values of a trial as the part of ``params.yaml`` that they replace.

    Milestones, which are shares of `iterations` in a space, become iterations.
    """
    protocol: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in values.items():
        if MILESTONE.fullmatch(name):
            earlier = protocol.setdefault("milestones", [])
            earlier.append(max(earlier[-1] + 1 if earlier else 1, round(float(value) * iterations)))
        else:
            group, _, key = name.partition(".")
            (protocol if group == "protocol" else options)[key] = value
    found: dict[str, Any] = {"protocol": protocol} if protocol else {}
    return found | ({"experiments": {experiment: {"options": options}}} if options else {})


def merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with the leaves of another put over it."""
    result = dict(tree)
    for key, value in over.items():
        before = result.get(key)
        result[key] = merged(before or {}, value) if isinstance(value, Mapping) else value
    return result


def own_values(space: Space, settings: Config, experiment: str) -> dict[str, Value] | None:
    """The profile's own settings as values of a space; None where the space does not hold them."""
    from models import resolve_options

    chosen, protocol = settings.experiments[experiment], settings.protocol
    options = resolve_options(chosen.network, chosen.options.model_dump(exclude_none=True))
    own: dict[str, Any] = {"protocol": {}, "options": {}}
    values: dict[str, Value] = {}
    for name, parameter in space.parameters.items():
        group, _, key = name.partition(".")
        if match := MILESTONE.fullmatch(name):
            own["protocol"]["milestones"] = list(protocol.milestones)
            if int(match[1]) > len(protocol.milestones):
                return None
            value: Value = protocol.milestones[int(match[1]) - 1] / protocol.iterations
        else:
            value = own[group][key] = getattr(protocol if group == "protocol" else options, key)
        if not parameter.contains(value):
            return None
        values[name] = parameter.tidy(value)
    over = override(values, experiment, protocol.iterations)
    same = over.get("protocol", {}) == own["protocol"] and _options(over, experiment) == own["options"]
    return values if same else None


def _options(over: Mapping[str, Any], experiment: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = over.get("experiments", {}).get(experiment, {}).get("options", {})
    return found


def check_edges(space: Space, tree: Mapping[str, Any], experiment: str, iterations: int, source: str) -> None:
    """Refuse a space whose edges are no settings (a negative rate, an option that the network does not have)."""
    first = {name: parameter.extremes[0] for name, parameter in space.parameters.items()}
    for name, parameter in space.parameters.items():
        for value in parameter.extremes:
            config.parse(merged(tree, override({**first, name: value}, experiment, iterations)), f"{source}: {name}")
