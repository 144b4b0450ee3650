"""CIFAR in Parquet files, as the Hugging Face hub and users lay them out.

Columns: an image, a struct {bytes: encoded image, path: string} or the encoded image, and a label, a whole number (also
as text or a float) or the name of a class. A file belongs to the split that its name begins with,
`train-00000-of-00005.parquet` or `test.parquet`, or has as its only one, `cifar10-train.parquet`, or to that of its
folder, `train/0000.parquet`, in upper or lower case; other splits and columns are passed over.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.data.folders import SPLITS, canonical, named, visible
from pipeline.data.images import Record
from pipeline.utils.errors import UserError, one_line

IMAGES = ("img", "image")
FINE = ("fine_label", "fine_labels")
LABELS = ("label", "labels", *FINE)
_SHARD = re.compile(r"(?P<head>.*(train|test)-)(?P<index>\d+)(?P<tail>-of-(?P<total>\d+)).*\.parquet", re.IGNORECASE)
_BATCH = 1024  # rows held in memory at once


def find_shards(folder: Path) -> list[str]:
    """Return the paths of all shards in a folder, relative to it and sorted."""
    entries = list(visible(folder))
    for entry in [entry for entry in entries if entry.name.lower() in SPLITS and entry.is_dir()]:
        entries += visible(Path(entry.path))
    names = [Path(entry.path).relative_to(folder).as_posix() for entry in entries]
    return sorted(name for name in names if name.lower().endswith(".parquet") and split_of(name))


def split_of(name: str) -> str | None:
    """Return the split that a shard belongs to; None for other files."""
    path = Path(name.lower())
    found = re.findall(r"(?<![a-z])(train|test)(?![a-z])", path.name)
    if found and (path.name.startswith(found[0]) or len(set(found)) == 1):
        return str(found[0])
    return path.parent.name if path.parent.name in SPLITS else None


def check_shards(folder: Path, names: Sequence[str], rows: Mapping[str, int], classes: Sequence[str]) -> None:
    """Raise UserError with a list of all that is wrong: missing shards, columns, names of classes, counts of rows."""
    problems = []
    wrong: defaultdict[str, list[str]] = defaultdict(list)  # names of shards, by what is wrong with them
    for split, expected in rows.items():
        shards = [name for name in names if split_of(name) == split]
        problems += _missing(shards) if shards else [f"no {split}-*.parquet beside the other split"]
        count = 0
        for name in shards:
            try:
                with _opened(folder / name, classes) as (file, columns):
                    if unknown := _unknown_labels(file, columns):
                        wrong[f"column {columns.label} has labels that are not classes: {named(unknown)}"].append(name)
                    count += file.metadata.num_rows
            except UserError as error:
                wrong[str(error)].append(name)
        if shards and not problems and not wrong and count != expected:
            problems.append(f"{count} {split} rows in {len(shards)} shards, expected {expected}: {named(shards)}")
    problems += [f"{named(shards)}: {problem}" for problem, shards in wrong.items()]
    if any("not classes" in problem for problem in wrong):
        problems.append(f"the classes are {', '.join(classes)}")
    if problems:
        raise UserError(f"{folder}: {'; '.join(problems)}")


def _missing(shards: Sequence[str]) -> list[str]:
    """Describe the siblings that are missing, by the numbers in the names; without numbers the rows are counted."""
    problems = []
    matches = [match for shard in shards if (match := _SHARD.fullmatch(Path(shard).name))]
    present = {match[0][: match.end("total")] for match in matches}
    series = {(match["head"], match["tail"], len(match["index"]), int(match["total"])) for match in matches}
    for head, tail, digits, count in sorted(series):
        siblings = [f"{head}{index:0{digits}d}{tail}" for index in range(min(count, len(shards) + 1000))]
        missing = [f"{name}.parquet" for name in siblings if name not in present]
        problems += [f"missing: {named(missing)}"] if missing else []
    return problems


def read_shards(folder: Path, names: Sequence[str], classes: Sequence[str]) -> Iterator[Record]:
    """Yield the encoded images of some shards, with the index of their class as label."""
    for name in names:
        path = folder / name
        with _opened(path, classes, f"{path}: ") as (file, columns):
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=[columns.content, columns.label]):
                images, values = batch.column(columns.image).to_pylist(), batch.column(columns.label).to_pylist()
                for image, value in zip(images, values, strict=True):
                    place = f"{path} row {row}"
                    encoded = image["bytes"] if isinstance(image, dict) else image
                    if encoded is None or value is None:
                        raise UserError(f"{place}: no image bytes or no label")
                    yield Record(place, encoded, columns.class_index(value, place))
                    row += 1


@contextmanager
def _opened(path: Path, classes: Sequence[str], title: str = "") -> Iterator[tuple[Any, _Columns]]:
    """Open a `pyarrow.parquet.ParquetFile` and choose its columns; UserError, after `title`, if it is wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            try:
                columns = _columns(file.schema_arrow, classes)
            except UserError as error:
                raise UserError(f"{title}{error}") from None
            yield file, columns
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{title}damaged Parquet file ({one_line(error)})") from None


class _Columns(NamedTuple):
    """Names of the columns of a shard, and the class of each value in the label column (None: the value itself).

    `content` is the column of the encoded images: `image`, or its field bytes.
    """

    image: str
    content: str
    label: str
    classes: Mapping[Any, int] | None

    def class_index(self, value: Any, place: str) -> int:
        """Return the index of the class that a value stands for."""
        if self.classes is None:
            return int(value)
        if not self.knows(value):
            raise UserError(f"{place}: label {value!r} is not a class")
        return self.classes[_key(value)]

    def knows(self, value: Any) -> bool:
        """Return whether a value stands for a class, as far as its kind of label tells."""
        return self.classes is None or _key(value) in self.classes


def _key(value: Any) -> Any:
    return canonical(value) if isinstance(value, str) else value


def _columns(schema: Any, classes: Sequence[str]) -> _Columns:
    """Choose the columns of a shard; UserError unless there is one of each, with the types needed."""
    import pyarrow as pa

    # CIFAR-100 has a coarse label, too, which may be called `label` beside `fine_label`.
    fine = len(classes) == 100 and any(name in schema.names for name in FINE)
    image, label = _only(schema, IMAGES), _only(schema, FINE if fine else LABELS)
    content, encoded, label_type = image, schema.field(image).type, schema.field(label).type
    if pa.types.is_struct(encoded) and encoded.get_field_index("bytes") >= 0:
        content, encoded = f"{image}.bytes", encoded.field("bytes").type
    if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
        raise UserError(f"column {content} is {encoded}, needed is binary, or a struct with bytes and path")
    if pa.types.is_dictionary(label_type):
        label_type = label_type.value_type
    numbers = _class_label(schema, label, classes)
    if pa.types.is_integer(label_type):
        return _Columns(image, content, label, numbers)
    numbers = numbers or {index: index for index in range(len(classes))}
    if pa.types.is_floating(label_type):
        return _Columns(image, content, label, numbers)
    if not (pa.types.is_string(label_type) or pa.types.is_large_string(label_type)):
        raise UserError(f"column {label} is {label_type}, needed are whole numbers or names of classes")
    digits = {str(number): index for number, index in numbers.items()}
    return _Columns(image, content, label, {**digits, **{name: index for index, name in enumerate(classes)}})


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
    # Where all names that are classes are in our order, so are a few that are spelt in an unknown way.
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


def _unknown_labels(file: Any, columns: _Columns) -> list[str]:
    """Return the labels of a shard that are not classes, sorted; integers in our order are told by their rows."""
    if columns.classes is None:
        return []
    column = file.read(columns=[columns.label]).column(columns.label)
    return sorted(str(value) for value in column.unique().to_pylist() if value is not None and not columns.knows(value))
