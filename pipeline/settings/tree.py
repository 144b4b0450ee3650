"""The one typed, frozen tree of the settings of a profile.

Everything that a user can get wrong is refused here, on the driver, before any data is touched or any worker starts.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, field_validator, model_validator

from models.options import MOST_PIXELS, MOST_UNITS
from pipeline.runs.execution import Checkpoints, Resources
from pipeline.runs.spec import Crops, NoiseDraw, Precision, Protocol, Seed, check_protocol
from pipeline.settings.places import free_place, simple_name
from pipeline.settings.plan import Label, Report, Tracking
from pipeline.settings.reading import Settings
from pipeline.utils.limits import Ge, Gt, Le, Len
from pipeline.utils.names import did_you_mean

MOST_RUNS = 5000

Positive = Annotated[int, Gt(0)]
Level = Annotated[int, Ge(1), Le(99)]
Pixels = Annotated[int, Gt(0), Le(MOST_PIXELS)]
Units = Annotated[int, Gt(0), Le(MOST_UNITS)]


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    value, times = Counter(values).most_common(1)[0] if values else (None, 0)
    if times > 1:
        raise ValueError(f"{value} is there {times} times; all must differ")
    return values


Name = Annotated[str, AfterValidator(simple_name)]


class Data(Settings):
    """The data set, where it comes from, where it is kept for other nodes, and its label noise.

    `noise_levels` are in percent; `noise_draw` numbers the random draw of the noisy labels that all runs share.
    """

    name: str
    source: Annotated[str, Len(1, 4096)]
    remote: str | None = None
    noise_levels: Annotated[tuple[Level, ...], AfterValidator(_distinct)]
    noise_draw: NoiseDraw = 0

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
    p: Units | None = None
    t: Units | None = None
    r: Units | None = None


class Experiment(Settings):
    """One row of a table: a network, its options, and the label noise in percent.

    `train_crop` and `test_crop`, in pixels, are for image files; without them the profile's `crops` count.
    """

    network: str
    options: NetworkOptions = NetworkOptions()
    noise: Annotated[int, Ge(0), Le(99)] = 0
    train_crop: Pixels | None = None
    test_crop: Pixels | None = None

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


class Config(Settings):
    """The whole tree of one profile."""

    profile: Name
    label: Label
    data: Data
    experiments: Annotated[dict[Name, Experiment], Len(1, MOST_RUNS)]
    seeds: Annotated[tuple[Seed, ...], Len(1, MOST_RUNS), AfterValidator(_distinct)]
    protocol: Annotated[Protocol, AfterValidator(check_protocol)]
    crops: Crops | None = None
    precision: Precision
    channels_last: bool
    compile: bool
    resources: Resources
    checkpoints: Checkpoints
    store: Annotated[str, Len(1, 4096), AfterValidator(free_place)]
    tracking: Tracking
    report: Report

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        from pipeline.training.groups import plan_groups

        if len(self.experiments) * len(self.seeds) > MOST_RUNS:
            raise ValueError(
                f"seeds: {len(self.seeds)} seeds of {len(self.experiments)} experiments are more than {MOST_RUNS} runs"
            )
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
    raise ValueError(f"{did_you_mean(value, names)} allowed: {', '.join(names)}".lstrip())
