"""CIFAR in Parquet files, as the Hugging Face hub and users lay them out.

Columns: an image, a struct {bytes: encoded image, path: string}, and a label, an integer or the name of a class. A file
belongs to the split that its name begins with, `train-00000-of-00005.parquet` or `test.parquet`, or to that of its
folder, `train/0000.parquet`; other splits and columns are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.data.folders import canonical, named
from pipeline.data.images import Record
from pipeline.utils.errors import UserError, one_line

IMAGES = ("img", "image")
LABELS = ("label", "labels", "fine_label")
_SHARD = re.compile(r"(train|test)-(?P<index>\d+)-of-(?P<total>\d+).*\.parquet")
_BATCH = 1024  # rows held in memory at once


def find_shards(folder: Path) -> list[str]:
    """Return the paths of all shards in a folder, relative to it and sorted."""
    paths = [path for pattern in ("*.parquet", "train/*.parquet", "test/*.parquet") for path in folder.glob(pattern)]
    return sorted(name for path in paths if split_of(name := path.relative_to(folder).as_posix()))


def split_of(name: str) -> str | None:
    """Return the split that a shard belongs to; None for other files."""
    path = Path(name)
    if match := re.match(r"(train|test)(?![a-z])", path.name):
        return match[1]
    return path.parent.name if path.parent.name in ("train", "test") else None


def check_shards(folder: Path, names: Sequence[str], rows: Mapping[str, int], classes: Sequence[str]) -> None:
    """Raise UserError with a list of all that is wrong: missing shards, columns, names of classes, counts of rows."""
    problems = []
    for split, expected in rows.items():
        shards = [name for name in names if split_of(name) == split]
        problems += _missing(shards) if shards else [f"no {split}-*.parquet beside the other split"]
        count = 0
        for name in shards:
            try:
                with _opened(folder / name, name, classes) as (file, columns):
                    unknown = _unknown_names(file, columns)
                    count += file.metadata.num_rows
            except UserError as error:
                problems.append(str(error))
                continue
            if unknown:
                problems.append(
                    f"{name}: column {columns.label} has names that are not classes: {named(unknown)}"
                    f" (the classes are {', '.join(classes)})"
                )
        if shards and not problems and count != expected:
            problems.append(f"{count} {split} rows in {len(shards)} shards, expected {expected}: {named(shards)}")
    if problems:
        raise UserError(f"{folder}: {'; '.join(problems)}")


def _missing(shards: Sequence[str]) -> list[str]:
    """Describe the siblings that are missing, by the numbers in the names; without numbers the rows are counted."""
    problems = []
    present = {Path(shard).name[: match.end("total")] for shard in shards if (match := _match(shard))}
    for total in sorted({(match[1], match["total"], len(match["index"])) for s in shards if (match := _match(s))}):
        split, count, digits = total
        siblings = [f"{split}-{index:0{digits}d}-of-{count}" for index in range(min(int(count), len(shards) + 1000))]
        missing = [f"{name}.parquet" for name in siblings if name not in present]
        problems += [f"missing: {named(missing)}"] if missing else []
    return problems


def _match(shard: str) -> re.Match[str] | None:
    return _SHARD.fullmatch(Path(shard).name)


def read_shards(folder: Path, names: Sequence[str], classes: Sequence[str]) -> Iterator[Record]:
    """Yield the encoded images of some shards, with the index of their class as label."""
    for name in names:
        path = folder / name
        with _opened(path, str(path), classes) as (file, columns):
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=[f"{columns.image}.bytes", columns.label]):
                images, values = batch.column(columns.image).to_pylist(), batch.column(columns.label).to_pylist()
                for image, value in zip(images, values, strict=True):
                    place = f"{path} row {row}"
                    if image is None or image["bytes"] is None or value is None:
                        raise UserError(f"{place}: no image bytes or no label")
                    yield Record(place, image["bytes"], columns.class_index(value, place))
                    row += 1


@contextmanager
def _opened(path: Path, title: str, classes: Sequence[str]) -> Iterator[tuple[Any, _Columns]]:
    """Open a `pyarrow.parquet.ParquetFile` and choose its columns; `title` names it in the UserError if it is wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            try:
                columns = _columns(file.schema_arrow, classes)
            except UserError as error:
                raise UserError(f"{title}: {error}") from None
            yield file, columns
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{title}: damaged Parquet file ({one_line(error)})") from None


class _Columns(NamedTuple):
    """Names of the columns of a shard, and the class of each value in the label column (None: the value itself)."""

    image: str
    label: str
    classes: Mapping[Any, int] | None

    def class_index(self, value: Any, place: str) -> int:
        """Return the index of the class that a value stands for."""
        if self.classes is None:
            return int(value)
        key = canonical(value) if isinstance(value, str) else value
        if key not in self.classes:
            raise UserError(f"{place}: label {value!r} is not a class")
        return self.classes[key]


def _columns(schema: Any, classes: Sequence[str]) -> _Columns:
    """Choose the columns of a shard; UserError unless there is one of each, with the types needed."""
    import pyarrow as pa

    # CIFAR-100 has a coarse label, too, which may be called `label` beside `fine_label`.
    fine = len(classes) == 100 and "fine_label" in schema.names
    image, label = _only(schema, IMAGES), _only(schema, ("fine_label",) if fine else LABELS)
    image_type, label_type = schema.field(image).type, schema.field(label).type
    if not pa.types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise UserError(f"column {image} is {image_type}, needed is a struct with bytes and path")
    encoded = image_type.field("bytes").type
    if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
        raise UserError(f"column {image}.bytes is {encoded}, needed is binary")
    if pa.types.is_dictionary(label_type):
        label_type = label_type.value_type
    if pa.types.is_string(label_type) or pa.types.is_large_string(label_type):
        return _Columns(image, label, {name: index for index, name in enumerate(classes)})
    if not pa.types.is_integer(label_type):
        raise UserError(f"column {label} is {label_type}, needed are integers or names of classes")
    return _Columns(image, label, _class_label(schema, label, classes))


def _only(schema: Any, allowed: Sequence[str]) -> str:
    found = [name for name in schema.names if name in allowed]
    if len(found) != 1:
        raise UserError(f"columns {', '.join(schema.names)}; needed is one of {', '.join(allowed)}")
    return str(found[0])


def _class_label(schema: Any, label: str, classes: Sequence[str]) -> Mapping[Any, int] | None:
    """Return the class of each integer by the names in the hub's metadata; None where integers are in our order."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
        found = [classes.index(key) if (key := canonical(name)) in classes else None for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # no names, the usual case
    if names == [str(index) for index in range(len(classes))]:
        return None
    # The hub's CIFAR-100 has a misspelt class: where all other names are in our order, so is that one.
    in_order = all(index in (None, position) for position, index in enumerate(found))
    if len(found) == len(classes) and in_order and found.count(None) <= len(classes) // 10:
        return None
    mapping = {position: index for position, index in enumerate(found) if index is not None}
    if len(found) != len(classes) or len(set(mapping.values())) != len(classes):
        unknown = [str(name) for name, index in zip(names, found, strict=True) if index is None]
        raise UserError(
            f"column {label}: its {len(names)} names in the metadata are not the {len(classes)} classes"
            f" (unknown: {named(unknown) or 'none'})"
        )
    return mapping


def _unknown_names(file: Any, columns: _Columns) -> list[str]:
    """Return the names in the label column of a shard that are not classes, sorted."""
    if columns.classes is None or not isinstance(next(iter(columns.classes)), str):
        return []
    column = file.read(columns=[columns.label]).column(columns.label)
    return sorted({v for v in column.unique().to_pylist() if v is not None and canonical(v) not in columns.classes})
