"""The specification of a run: everything that changes its numbers, and the hash that identifies it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from models.options import MOST_PIXELS
from pipeline.runs.reading import DamagedError, parse
from pipeline.utils.errors import UserError, one_line, shown
from pipeline.utils.limits import Ge, Gt, Le, Len, Lt
from pipeline.utils.names import checked_name, checked_plain_name

# The version of the arithmetic of training, a part of every run's identity. Raise it in the change that makes the same
# run give other numbers (the test of golden losses fails then and says so); leave it alone in every other change.
NUMERICS = 1
# Left out of the identity, by name: they label a run and change none of its numbers. (The data are identified by
# their checksums.)
NOT_IN_IDENTITY = frozenset({"experiment"})
NOT_IN_IDENTITY_OF_DATA = frozenset({"classes"})
IDENTITY_DIGITS = 12
LONGEST_NAME = 120  # bytes: a temporary folder's name has the host and a process number, too, and ends at 255

LARGEST_OPTION = 1000
RUN_FOLDER = re.compile(r"(.+-s\d+)-([0-9a-f]{12})")  # a folder_name: the name of a run, and its identity

Images = Annotated[int, Gt(0), Lt(2**40)]
Precision = Literal["float32", "bfloat16"]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
NoiseDraw = Annotated[int, Ge(0), Le(999)]


@dataclass(frozen=True)
class NetworkSpec:
    """A network of `models.create_model`."""

    name: str
    num_classes: Annotated[int, Gt(0), Le(10**6)]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that are none, and values of options that no network has."""
        checked_plain_name(self.name, "network.name")
        for key, value in self.options.items():
            checked_plain_name(key, "network.options")
            if not isinstance(value, int):
                checked_plain_name(value, f"network.options.{key}")
            elif not 0 <= value <= LARGEST_OPTION:
                raise UserError(f"network.options.{key} = {shown(value)}: must be from 0 to {LARGEST_OPTION}")


@dataclass(frozen=True)
class DataSpec:
    """Prepared data, by checksum.

    Attributes:
        noise: label noise in percent (0: clean labels).
        noise_draw: number of the random draw of the noisy labels.
    """

    dataset: str
    noise: Annotated[int, Ge(0), Le(99)]
    checksum: Annotated[str, Len(64, 64)]
    noise_checksum: Annotated[str, Len(64, 64)] | None
    image_size: Annotated[int, Gt(0), Le(MOST_PIXELS)]
    train_images: Images
    test_images: Images
    classes: Annotated[tuple[str, ...], Len(1)]
    noise_draw: NoiseDraw = 0

    def __post_init__(self) -> None:
        """Refuse names that are none, and checksums that do not go with the noise; a plan without data has none."""
        checked_plain_name(self.dataset, "data.dataset")
        for key in ("checksum", "noise_checksum"):
            if not re.fullmatch("[0-9a-f]*", getattr(self, key) or ""):
                raise UserError(f"data.{key} = {shown(getattr(self, key))}: must be a SHA-256 in hex")
        if self.checksum and bool(self.noise) != bool(self.noise_checksum):
            raise UserError(
                f"data.noise_checksum = {shown(self.noise_checksum)}: does not go with data.noise = {self.noise}"
            )
        for name in self.classes:
            checked_name(name, "data.classes")


@dataclass(frozen=True)
class Protocol:
    """Optimisation and augmentation (paper, section 4.1 for CIFAR).

    Attributes:
        iterations: steps of the optimiser, one batch each.
        batch_size: images in the global batch, whatever the number of workers.
        milestones: iterations at which the learning rate is multiplied by `gamma`.
        weight_decay: on every parameter, batch norm included.
        padding: zero padding in pixels on each side before the random crop.
        flip: whether images are mirrored at random.
        batch_norm_group: images over which the batch-norm statistics of training are computed.
    """

    iterations: Annotated[int, Gt(0), Le(10**7)]
    batch_size: Annotated[int, Gt(0), Le(2**20)]
    learning_rate: Annotated[float, Gt(0), Le(1e30)]
    milestones: tuple[Annotated[int, Gt(0)], ...]
    gamma: Annotated[float, Gt(0), Le(1)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    nesterov: bool
    weight_decay: Annotated[float, Ge(0), Le(1e30)]
    padding: Annotated[int, Ge(0), Le(64)]
    flip: bool
    batch_norm_group: Annotated[int, Ge(2), Le(2**20)]


def check_protocol(protocol: Protocol) -> Protocol:
    """Return a protocol, unless some of its values do not go together: then ValueError."""
    milestones, iterations = list(protocol.milestones), protocol.iterations
    if milestones != sorted(set(milestones)) or any(m >= iterations for m in milestones):
        raise ValueError(f"milestones = {shown(milestones)}: must rise and lie below iterations = {iterations}")
    if protocol.batch_size % protocol.batch_norm_group:
        raise ValueError(
            f"batch_norm_group = {protocol.batch_norm_group}: must divide batch_size = {protocol.batch_size}"
        )
    if protocol.nesterov and protocol.momentum == 0:
        raise ValueError("nesterov = true: needs a momentum above 0")
    return protocol


@dataclass(frozen=True)
class Crops:
    """How image files are cut and coloured (paper, section 4.2).

    Attributes:
        train: side in pixels that training crops of varied scale and aspect are resized to.
        test: side in pixels of the crop that is tested on.
        colour: standard deviation of the colour augmentation along each principal component (AlexNet: 0.1; 0: none).
        decoder: "libjpeg-turbo", on the processor, or "nvjpeg", on the GPU; their pixels differ by rounding, and by the
            filter where an image is shrunk to less than a half.
    """

    train: Annotated[int, Gt(0), Le(MOST_PIXELS)]
    test: Annotated[int, Gt(0), Le(MOST_PIXELS)]
    colour: Annotated[float, Ge(0), Le(100)]
    decoder: Literal["libjpeg-turbo", "nvjpeg"] = "libjpeg-turbo"


class Configured:
    """What the content of a ``config.json`` says of a run; it need not be complete.

    Attributes:
        config: the content.
    """

    config: Mapping[str, Any]

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.config["experiment"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def name(self) -> str:
        """Name of the run in a plan: ``<experiment>-s<seed>``."""
        return f"{self.experiment}-s{self.seed}"

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.config["network"]["name"])

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.config["data"]["dataset"])

    @property
    def noise(self) -> int:
        """Label noise in percent."""
        return int(self.config["data"].get("noise") or 0)

    @property
    def noise_draw(self) -> int:
        """Number of the random draw of the noisy labels."""
        return int(self.config["data"].get("noise_draw") or 0)


@dataclass(frozen=True)
class RunSpec:
    """One training run; `crops` are None for data sets of arrays."""

    experiment: str
    seed: Seed
    network: NetworkSpec
    data: DataSpec
    protocol: Protocol
    precision: Precision = "float32"
    channels_last: bool = True
    compile: bool = False
    numerics: Annotated[int, Ge(0), Le(10**6)] = NUMERICS
    crops: Crops | None = None

    def __post_init__(self) -> None:
        """Refuse an experiment or a seed that cannot be a part of a folder's name."""
        checked_plain_name(self.experiment, "experiment")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise UserError(f"seed = {self.seed!r}: must be an integer from 0 to 2**63 - 1")
        if len(self.name.encode()) > LONGEST_NAME:
            raise UserError(
                f"experiment = {self.experiment!r}: must be shorter, as a run's name has {LONGEST_NAME} bytes"
            )

    @property
    def identity(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of all that changes the run's numbers."""
        content = {key: value for key, value in self._content().items() if key not in NOT_IN_IDENTITY}
        content["data"] = {k: v for k, v in content["data"].items() if k not in NOT_IN_IDENTITY_OF_DATA}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:IDENTITY_DIGITS]

    @property
    def name(self) -> str:
        """Name of the run in a plan: ``<experiment>-s<seed>``."""
        return f"{self.experiment}-s{self.seed}"

    @property
    def folder_name(self) -> str:
        """Name of the run's folder in a store: ``<experiment>-s<seed>-<identity>``."""
        return f"{self.name}-{self.identity}"

    def to_json(self) -> dict[str, Any]:
        """The content of a run's ``config.json``."""
        return {"identity": self.identity, **_plain(self._content())}

    def _content(self) -> dict[str, Any]:
        """All settings; crops and draw of noise only where they are not the default: older runs keep their identity."""
        content = {key: value for key, value in asdict(self).items() if key != "crops" or value is not None}
        if not self.data.noise_draw:
            del content["data"]["noise_draw"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str | Path = "config.json") -> RunSpec:
        """The run of a ``config.json``, or of an entry of the plan.

        Raises:
            DamagedError: if a key is missing or of another type, or the identity is not that of the rest.
        """
        try:
            spec = parse(cls, content, Path(source))
            check_protocol(spec.protocol)
        except ValueError as error:
            reason = error.reason if isinstance(error, DamagedError) else one_line(error)
            raise DamagedError(Path(source), f"not the configuration of a run ({reason})") from None
        if content.get("identity") != spec.identity:
            raise DamagedError(
                Path(source),
                f"identity = {shown(content.get('identity'))} does not belong to this configuration, whose identity is"
                f" {spec.identity!r}",
            )
        if _plain(content) != spec.to_json():
            raise DamagedError(Path(source), "not the configuration of a run (it has keys that a run does not have)")
        return spec


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def evaluation_iterations(spec: RunSpec) -> list[int]:
    """Iterations after which a run is evaluated: whenever another epoch's worth of images was seen, and the last."""
    protocol, images = spec.protocol, spec.data.train_images
    epochs = protocol.iterations * protocol.batch_size // images
    points = {-(-epoch * images // protocol.batch_size) for epoch in range(1, epochs + 1)}
    return sorted(points | {protocol.iterations})
