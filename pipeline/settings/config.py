"""The one typed, frozen tree of settings; the only reader of ``params.yaml``.

Profiles live under ``conf/`` and are composed by DVC (Hydra) into ``params.yaml``. Everything that a user can get
wrong is refused here, on the driver, before any data is touched or any worker starts.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.utils.errors import UserError

PARAMS = "params.yaml"
PROFILES = Path("conf/profile")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of the tree: frozen, strict in types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


Tree = TypeVar("Tree", bound=Settings)


class Label(Settings):
    """How results of this profile are introduced wherever they are shown."""

    standin: bool
    schedule: Literal["full", "short"]
    statement: Annotated[str, Field(min_length=1)]


class Data(Settings):
    """The data set, where it comes from, where it is kept for other nodes, and its label-noise levels in percent."""

    name: str
    source: Annotated[str, Field(min_length=1)]
    remote: str | None = None
    noise_levels: tuple[Annotated[int, Field(ge=1, le=99)], ...]

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        from pipeline.data import DATASETS

        return _one_of(name, DATASETS)

    @field_validator("remote")
    @classmethod
    def _opens(cls, remote: str | None) -> str | None:
        from pipeline.data.remote import check_url

        if remote is not None:
            check_url(remote)
        return remote


class NetworkOptions(Settings):
    """Options of the attention networks, in the paper's words."""

    learning: Literal["arl", "nal"] | None = None
    activation: Literal["mixed", "channel", "spatial"] | None = None
    mask: Literal["encoder_decoder", "local"] | None = None
    p: Positive | None = None
    t: Positive | None = None
    r: Positive | None = None


class Experiment(Settings):
    """One row of a table: a network, its options, and the label noise in percent.

    `train_crop` and `test_crop`, in pixels, are for photographs; without them the profile's `crops` count.
    """

    network: str
    options: NetworkOptions = NetworkOptions()
    noise: Annotated[int, Field(ge=0, le=99)] = 0
    train_crop: Positive | None = None
    test_crop: Positive | None = None

    @model_validator(mode="after")
    def _options_fit(self) -> Experiment:
        from models import resolve_options

        resolve_options(self.network, self.options.model_dump(exclude_none=True))
        return self

    @field_validator("network")
    @classmethod
    def _known(cls, network: str) -> str:
        from models import list_models

        return _one_of(network, list_models())


class Protocol(Settings):
    """Optimisation and augmentation; see `pipeline.runs.spec.Protocol`."""

    iterations: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    milestones: tuple[Positive, ...]
    gamma: Annotated[float, Field(gt=0, le=1)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool
    weight_decay: NotNegative
    padding: Annotated[int, Field(ge=0, le=64)]
    flip: bool
    batch_norm_group: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if list(self.milestones) != sorted(set(self.milestones)) or any(m >= self.iterations for m in self.milestones):
            raise ValueError(
                f"milestones = {list(self.milestones)}: must rise and lie below iterations = {self.iterations}"
            )
        if self.batch_size % self.batch_norm_group:
            raise ValueError(f"batch_norm_group = {self.batch_norm_group}: must divide batch_size = {self.batch_size}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = True: needs a momentum above 0")
        return self


class Crops(Settings):
    """How photographs are cut and coloured; see `pipeline.runs.spec.Crops`."""

    train: Positive
    test: Positive
    colour: NotNegative
    decoder: Literal["libjpeg-turbo", "nvjpeg"] = "libjpeg-turbo"


class Resources(Settings):
    """What each run is given, and how many run at once."""

    workers: Positive
    threads: Positive
    gpus: Literal["auto"] | NotNegative
    max_parallel: Positive | None
    max_failures: Annotated[int, Field(ge=0)]


class Checkpoints(Settings):
    """How often a run is saved, and how many checkpoints stay."""

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    keep: Positive


class Tracking(Settings):
    """What MLflow is told."""

    enabled: bool
    models: Literal["none", "best", "all"]
    system_metrics: bool


class Report(Settings):
    """Settings of the report."""

    equivalence_margin: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Config(Settings):
    """The whole tree of one profile."""

    profile: str
    label: Label
    data: Data
    experiments: Annotated[dict[str, Experiment], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    protocol: Protocol
    crops: Crops | None = None
    precision: Literal["float32", "bfloat16"]
    channels_last: bool
    compile: bool
    resources: Resources
    checkpoints: Checkpoints
    store: Annotated[str, Field(min_length=1)]
    tracking: Tracking
    report: Report

    @field_validator("profile")
    @classmethod
    def _simple_name(cls, name: str) -> str:
        return _simple(name)

    @field_validator("experiments")
    @classmethod
    def _simple_names(cls, experiments: dict[str, Experiment]) -> dict[str, Experiment]:
        for name in experiments:
            _simple(name)
        return experiments

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("each seed may stand there once")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        from pipeline.training.groups import plan_groups

        self._check_kind_of_data()
        for name, experiment in self.experiments.items():
            if experiment.noise and experiment.noise not in self.data.noise_levels:
                raise ValueError(
                    f"experiments.{name}.noise = {experiment.noise}: must be one of data.noise_levels ="
                    f" {list(self.data.noise_levels)}"
                )
        try:
            plan_groups(self.protocol.batch_size, self.protocol.batch_norm_group, self.resources.workers)
        except ValueError as error:
            raise ValueError(f"resources.workers = {self.resources.workers}: {error}") from None
        return self

    def _check_kind_of_data(self) -> None:
        """Settings for photographs go with photographs, and no others."""
        from pipeline.data import DATASETS, ImageFolderSet

        dataset = self.data.name
        if isinstance(DATASETS[dataset], ImageFolderSet):
            if self.crops is None:
                raise ValueError(f"crops: missing; {dataset} has photographs, which are cut to the sizes named there")
            if self.protocol.padding:
                raise ValueError(f"protocol.padding = {self.protocol.padding}: must be 0 for photographs")
            if self.data.noise_levels:
                raise ValueError(f"data.noise_levels = {list(self.data.noise_levels)}: must be [] for {dataset}")
            return
        if self.data.remote is not None:
            raise ValueError(f"data.remote = {self.data.remote!r}: must be null, {dataset} has no photographs")
        if self.crops is not None:
            raise ValueError(f"crops: are for photographs, which {dataset} has none of")
        for name, experiment in self.experiments.items():
            if experiment.train_crop or experiment.test_crop:
                raise ValueError(f"experiments.{name}: crops are for photographs, which {dataset} has none of")


def _one_of(value: str, allowed: Any) -> str:
    names = sorted(allowed)
    if value in names:
        return value
    near = difflib.get_close_matches(value, names, n=1)
    raise ValueError(f"{f'did you mean {near[0]!r}? ' if near else ''}allowed: {', '.join(names)}")


def _simple(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name: lower-case letters, digits, '-' and '_' only (it names folders and stages)"
        )
    return name


def parse(content: Any, source: str = PARAMS) -> Config:
    """Check a tree of settings; see `check`."""
    return check(Config, content, source)


def check(model: type[Tree], content: Any, source: str) -> Tree:
    """What a YAML file holds, as a typed tree.

    Raises:
        UserError: one line that names the key, its value and what is allowed.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: must hold keys and values, not {type(content).__name__}")
    try:
        return model.model_validate(_tuples(content))
    except ValidationError as error:
        raise UserError(f"{source}: {_sentence(error, model)}") from None


def _tuples(value: Any) -> Any:
    """YAML's lists as tuples, which strict validation of a frozen tree expects."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _sentence(error: ValidationError, model: type[Settings]) -> str:
    """The first of pydantic's complaints, in one line."""
    first = error.errors(include_url=False)[0]
    key = ".".join(
        str(part) for part in first["loc"] if not str(part).startswith(("literal[", "constrained-", "float"))
    )
    reason = str(first.get("ctx", {}).get("error", first["msg"])).replace("\n", " ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _fields_at(model, first["loc"][:-1]), n=1)
        return f"{key}: unknown key{f', did you mean {near[0]!r}?' if near else ''}{more}"
    if first["type"] == "missing":
        return f"{key}: missing{more}"
    value = first["input"]
    shown = "" if isinstance(value, Mapping | BaseModel) else f" = {_short(value)}"
    return f"{key}{shown}: {reason}{more}".removeprefix(": ")


def _short(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place of a tree."""
    for part in location:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        model = Experiment if part == "experiments" else (annotation or model)
    return list(getattr(model, "model_fields", {}))


def load(path: str | Path = PARAMS) -> Config:
    """Read and check ``params.yaml``."""
    return parse(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> Any:
    """Content of a YAML file; a missing or malformed one raises UserError."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; `make repro` or `python -m pipeline compose <profile>` writes it"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


def profiles(root: Path = Path()) -> list[str]:
    """The profiles under ``conf/profile``."""
    return sorted(path.stem for path in (root / PROFILES).glob("*.yaml"))


def compose(profile: str, overrides: list[str], output: Path, root: Path = Path()) -> Config:
    """Compose a profile by DVC's own means, check it, and only then write it.

    Args:
        profile: name of a file under ``conf/profile``.
        overrides: Hydra overrides, e.g. ``data.source=/path/to/shards``.
        output: the file to write, normally ``params.yaml``.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if profile not in profiles(root):
        raise UserError(f"profile = {profile!r}: must be one of {', '.join(profiles(root))}")
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"{override!r}: not an override; allowed is KEY=VALUE, e.g. data.source=/path/to/shards")
    fresh = output.with_name(f".{output.stem}.{os.getpid()}.yaml")
    try:
        compose_and_dump(
            str(fresh), str((root / "conf").resolve()), None, "config", "", [f"profile={profile}", *overrides]
        )
        config = parse(read_yaml(fresh), f"profile {profile}")
        fresh.replace(output)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"profile {profile}: {' '.join(str(error).split())}") from None
    finally:
        fresh.unlink(missing_ok=True)
    return config


def drift(path: Path = Path(PARAMS), root: Path = Path()) -> list[str]:
    """Differences between ``params.yaml`` and the composed profile that it names, a line each."""
    current = read_yaml(path)
    composed = path.with_name(f".{path.stem}.composed.{os.getpid()}.yaml")
    try:
        compose(str(current.get("profile")), [], composed, root)
        wanted = read_yaml(composed)
    finally:
        composed.unlink(missing_ok=True)
    left, right = dict(_leaves(current)), dict(_leaves(wanted))
    missing = "(none)"
    return [
        f"{key}: params.yaml has {left.get(key, missing)}, conf/ has {right.get(key, missing)}"
        for key in dict.fromkeys([*left, *right])
        if left.get(key, missing) != right.get(key, missing)
    ]


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{prefix}.{key}".removeprefix("."))]
    return [(prefix, value)]
