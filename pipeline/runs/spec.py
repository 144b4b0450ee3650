"""The specification of a run: everything that changes its numbers, and the hash that identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pipeline.runs.reading import DamagedError, parse
from pipeline.utils.errors import UserError
from pipeline.utils.limits import Ge, Gt, Le, Lt
from pipeline.utils.names import checked_name

# The version of the arithmetic of training, a part of every run's identity. Raise it in the change that makes the same
# run give other numbers (the test of golden losses fails then and says so); leave it alone in every other change.
NUMERICS = 1
# Left out of the identity, by name: they label a run and change none of its numbers. (The data are identified by
# their checksums.)
NOT_IN_IDENTITY = frozenset({"experiment"})
NOT_IN_IDENTITY_OF_DATA = frozenset({"classes"})
IDENTITY_DIGITS = 12
LONGEST_NAME = 120  # bytes: a temporary folder's name has the host and a process number, too, and ends at 255

Precision = Literal["float32", "bfloat16"]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
NoiseDraw = Annotated[int, Ge(0), Le(999)]


@dataclass(frozen=True)
class NetworkSpec:
    """A network of `models.create_model`."""

    name: str
    num_classes: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSpec:
    """Prepared data, by checksum.

    Attributes:
        noise: label noise in percent (0: clean labels).
        noise_draw: number of the random draw of the noisy labels.
    """

    dataset: str
    noise: int
    checksum: str
    noise_checksum: str | None
    image_size: int
    train_images: int
    test_images: int
    classes: tuple[str, ...]
    noise_draw: NoiseDraw = 0


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
    learning_rate: Annotated[float, Gt(0)]
    milestones: tuple[Annotated[int, Gt(0)], ...]
    gamma: Annotated[float, Gt(0), Le(1)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    nesterov: bool
    weight_decay: Annotated[float, Ge(0)]
    padding: Annotated[int, Ge(0), Le(64)]
    flip: bool
    batch_norm_group: Annotated[int, Ge(2)]


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

    train: Annotated[int, Gt(0), Le(4096)]
    test: Annotated[int, Gt(0), Le(4096)]
    colour: Annotated[float, Ge(0)]
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
    numerics: int = NUMERICS
    crops: Crops | None = None

    def __post_init__(self) -> None:
        """Refuse an experiment, a seed or a data set that cannot be a part of a folder's name."""
        checked_name(self.experiment, "experiment")
        checked_name(self.data.dataset, "data.dataset")
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
        except DamagedError as error:
            raise DamagedError(error.path, f"not the configuration of a run ({error.reason})") from None
        if content.get("identity") != spec.identity:
            raise DamagedError(
                Path(source),
                f"identity = {content.get('identity')!r} does not belong to this configuration, whose identity is"
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
