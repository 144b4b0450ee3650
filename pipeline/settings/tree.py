"""The one typed, frozen tree of the settings of a profile.

Everything that a user can get wrong is refused here, on the driver, before any data is touched or any worker starts.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.runs.execution import Checkpoints, Resources
from pipeline.runs.spec import Crops, Protocol
from pipeline.settings.reading import Settings

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

Positive = Annotated[int, Field(gt=0)]


def _simple(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name: lower-case letters, digits, '-' and '_' only (it names folders and stages)"
        )
    return name


Name = Annotated[str, AfterValidator(_simple)]


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

    `train_crop` and `test_crop`, in pixels, are for image files; without them the profile's `crops` count.
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


def _rates_and_groups(protocol: Protocol) -> Protocol:
    """Refuse values of a protocol that do not go together."""
    milestones, iterations = list(protocol.milestones), protocol.iterations
    if milestones != sorted(set(milestones)) or any(m >= iterations for m in milestones):
        raise ValueError(f"milestones = {milestones}: must rise and lie below iterations = {iterations}")
    if protocol.batch_size % protocol.batch_norm_group:
        raise ValueError(
            f"batch_norm_group = {protocol.batch_norm_group}: must divide batch_size = {protocol.batch_size}"
        )
    if protocol.nesterov and protocol.momentum == 0:
        raise ValueError("nesterov = true: needs a momentum above 0")
    return protocol


class Tracking(Settings):
    """What is logged to MLflow."""

    enabled: bool
    models: Literal["none", "best", "all"]
    system_metrics: bool


class Report(Settings):
    """Settings of the report."""

    equivalence_margin: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Config(Settings):
    """The whole tree of one profile."""

    profile: Name
    label: Label
    data: Data
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    protocol: Annotated[Protocol, AfterValidator(_rates_and_groups)]
    crops: Crops | None = None
    precision: Literal["float32", "bfloat16"]
    channels_last: bool
    compile: bool
    resources: Resources
    checkpoints: Checkpoints
    store: Annotated[str, Field(min_length=1)]
    tracking: Tracking
    report: Report

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
        """Settings for image files go with data sets of image files, and no others."""
        from pipeline.data import DATASETS, ImageFolderSet

        dataset = self.data.name
        if isinstance(DATASETS[dataset], ImageFolderSet):
            if self.crops is None:
                raise ValueError(f"crops: missing; {dataset} has image files, which are cut to the sizes named there")
            if self.protocol.padding:
                raise ValueError(f"protocol.padding = {self.protocol.padding}: must be 0 for image files")
            if self.data.noise_levels:
                raise ValueError(f"data.noise_levels = {list(self.data.noise_levels)}: must be [] for {dataset}")
            return
        if self.data.remote is not None:
            raise ValueError(f"data.remote = {self.data.remote!r}: must be null, {dataset} has no image files")
        if self.crops is not None:
            raise ValueError(f"crops: are for image files, which {dataset} has none of")
        for name, experiment in self.experiments.items():
            if experiment.train_crop or experiment.test_crop:
                raise ValueError(f"experiments.{name}: crops are for image files, which {dataset} has none of")


def _one_of(value: str, allowed: Any) -> str:
    names = sorted(allowed)
    if value in names:
        return value
    near = difflib.get_close_matches(value, names, n=1)
    raise ValueError(f"{f'did you mean {near[0]!r}? ' if near else ''}allowed: {', '.join(names)}")
