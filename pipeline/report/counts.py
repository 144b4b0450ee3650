"""`networks.csv`: the counts of every network beside the paper's numbers, written and read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models import find_network, list_models
from pipeline.data.progress import progress_bar
from pipeline.runs.reading import DamagedError, read_verified, write_checksums
from pipeline.runs.spec import NetworkSpec
from pipeline.settings.counts import NetworkCounts
from pipeline.settings.paper import Printed, load_paper
from pipeline.utils.errors import UserError, one_line, shown
from pipeline.utils.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

OTHER_SIZES: Final = {"inception_resnet_v1": (), "inception_resnet_v2": (), "attentioninception56": (299,)}
"""Image sizes that are counted besides a network's own; 320 for the other ImageNet networks."""

REMEDY: Final = "`python -m pipeline counts` writes it again"
LARGEST: Final = 10**15

PRINTED_IN: Final = ("table6", "table7")
"""The tables of the paper whose sizes are compared. Table 2 prints 6.2 for Attention-56 where Table 7 prints 6.3."""


@dataclass(frozen=True)
class Count:
    """Exact counts of one network at one image size.

    Attributes:
        network: its name in `models`.
        image_size: height and width in pixels.
        parameters: learnable parameters.
        multiply_adds: of one image.
        depth: weighted layers of the trunk.
        reading: what had to be inferred about the network; "" if nothing.
        multiply_adds_at: the multiply-adds at every size that was counted, by image size.
    """

    network: str
    image_size: int
    parameters: int
    multiply_adds: int
    depth: int
    reading: str
    multiply_adds_at: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        for name in ("image_size", "parameters", "multiply_adds", "depth"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} = {shown(getattr(self, name))}: must be a whole number from 1 to {LARGEST}")

    def of(self, quantity: str) -> int:
        """Return one of `parameters`, `multiply_adds` and `depth`."""
        return {"parameters": self.parameters, "multiply_adds": self.multiply_adds, "depth": self.depth}[quantity]


CountsByNetwork = Mapping[str, Count]
"""The counts of networks, by their names."""


def count_all(known: NetworkCounts) -> pd.DataFrame:
    """Count every network, in natural order, first at the data set and image size of the paper, then at others."""
    import pandas as pd

    printed, rows = printed_sizes(), []
    cases = [case for name in list_models() for case in _cases(name)]
    with progress_bar("count networks", len(cases)) as advance:
        for case in cases:
            rows.append(_row(*case, printed, known))
            advance(1)
    return pd.DataFrame(rows, dtype=object)  # whole numbers and printed digits stay as they are beside empty cells


def counts_json(known: NetworkCounts) -> str:
    """Return the table of `count_all` as JSON, with numbers where the paper's digits and differences are text."""
    text = ("network", "dataset", "our_reading")
    rows = [
        {key: value if key in text or isinstance(value, int | None) else float(value) for key, value in row.items()}
        for row in count_all(known).to_dict("records")
    ]
    return json.dumps(rows, indent=2)


def write_counts(folder: Path, known: NetworkCounts) -> Path:
    """Write `networks.csv` with its SHA-256 in `checksums.json` beside it, and return its path."""
    path, data = folder / "networks.csv", count_all(known).to_csv(index=False, lineterminator="\n").encode()
    write_atomic(path, data)
    write_checksums(folder, [path.name])
    return path


def printed_sizes() -> dict[tuple[str, str], Printed]:
    """Return the printed parameters in 10^6 and multiply-adds in 10^9 by (network, quantity)."""
    return {
        (cell.network, quantity): cell.printed
        for table in PRINTED_IN
        for row in load_paper().table(table).rows
        for quantity, cell in row.cells.items()
        if cell.network is not None and cell.printed is not None
    }


def _cases(name: str) -> list[tuple[str, str, int, int]]:
    """Return network, data set, classes and image size of each row of a network."""
    own = find_network(name).image_size
    if name.startswith("cifar_"):
        return [(name, "cifar10", 10, own), (name, "cifar100", 100, own)]
    return [(name, "imagenet", 1000, size) for size in (own, *OTHER_SIZES.get(name, (320,)))]


def _row(
    name: str,
    dataset: str,
    classes: int,
    size: int,
    printed: Mapping[tuple[str, str], Printed],
    known: NetworkCounts,
) -> dict[str, object]:
    counts, network = known.of(NetworkSpec(name, classes, {}), size), find_network(name)
    parameters = printed.get((name, "parameters"))
    # The paper's multiply-adds are for 224x224 pixels, also of networks that it tests at 320x320: no other size gives
    # ResNet-152 and ResNet-200 the printed numbers.
    multiply_adds = printed.get((name, "multiply_adds")) if size == network.image_size else None
    return {
        "network": name,
        "dataset": dataset,
        "num_classes": classes,
        "image_size": size,
        "parameters": counts.parameters,
        "multiply_adds": counts.multiply_adds,
        "trunk_depth": counts.trunk_depth,
        "activation_mib": f"{counts.activation_bytes / 2**20:.1f}",
        "paper_parameters_millions": parameters,
        "paper_multiply_adds_billions": multiply_adds,
        "parameters_difference_percent": _difference(counts.parameters / 1e6, parameters),
        "multiply_adds_difference_percent": _difference(counts.multiply_adds / 1e9, multiply_adds),
        "our_reading": network.our_reading,
    }


def _difference(counted: float, printed: float | None) -> str | None:
    return None if printed is None else f"{100 * (counted / printed - 1):+.1f}"


def read_counts(folder: Path | None) -> dict[str, Count]:
    """The counts of a folder by network.

    The first row of a network gives its counts; the others add multiply-adds at further image sizes.

    Args:
        folder: where `write_counts` wrote; None, or a folder without such a table, has no counts.

    Raises:
        UserError: if the table is not one of counts, or not the one that was written.
    """
    counts: dict[str, Count] = {}
    for path in sorted(folder.glob("*.csv")) if folder is not None else ():
        try:
            table = csv.DictReader(io.StringIO(read_verified(path).decode(), newline=""), strict=True)
            for row in table:
                count = _count(row)
                first = counts.get(count.network, count)
                at = {count.image_size: count.multiply_adds} | dict(first.multiply_adds_at)
                counts[count.network] = replace(first, multiply_adds_at=at)
        except DamagedError as damage:
            raise UserError(f"{damage}; {REMEDY}") from None
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: not a table of counts ({one_line(error)}); {REMEDY}") from None
    return counts


def _count(row: Mapping[str, str]) -> Count:
    return Count(
        network=row["network"],
        image_size=int(row["image_size"]),
        parameters=int(row["parameters"]),
        multiply_adds=int(row["multiply_adds"]),
        depth=int(row["trunk_depth"]),
        reading=row.get("our_reading") or "",
    )
