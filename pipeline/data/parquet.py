"""Images in Parquet shards, as the Hugging Face hub lays them out.

Columns: `img`, a struct {bytes: encoded image, path: string}, and an integer label. The shards are named
`train-00000-of-00005.parquet` and lie in the folder itself or in one folder below it (`data/`, `plain_text/`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.data.images import Record
from pipeline.utils.errors import UserError, one_line

_SHARD = re.compile(r"(?P<split>train|test)-(?P<index>\d+)-of-(?P<total>\d+)(?P<suffix>.*)\.parquet")
_BATCH = 1024  # rows held in memory at once


def find_shards(folder: Path) -> list[str]:
    """Paths of all shards below a folder, relative to it and sorted; empty where there are none."""
    found = {}
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        names = sorted(p.relative_to(folder).as_posix() for p in place.glob("t*.parquet") if _split_of(p.name))
        if names:
            found[place] = names
    if len(found) > 1:
        places = " and ".join(str(place) for place in found)
        raise UserError(f"{places} hold Parquet shards; give one of them as the source")
    return next(iter(found.values()), [])


def _split_of(name: str) -> str | None:
    return next((split for split in ("train", "test") if name.startswith(f"{split}-")), None)


def check_shards(folder: Path, names: Sequence[str], rows: dict[str, int], labels: Sequence[str]) -> None:
    """Raise UserError unless the shards are complete, have the columns needed and `rows[split]` rows a split."""
    for split, expected in rows.items():
        shards = shards_of(names, split)
        _check_numbering(folder, shards, split)
        count = 0
        for name in shards:
            with _opened(folder / name) as file:
                _label_column(file.schema_arrow, labels, folder / name)
                count += file.metadata.num_rows
        if count != expected:
            raise UserError(f"{folder}: {count} {split} rows in {len(shards)} shards, expected {expected}")


def shards_of(names: Sequence[str], split: str) -> list[str]:
    """The shards of one split ("train" or "test")."""
    return [name for name in names if _split_of(Path(name).name) == split]


def _check_numbering(folder: Path, shards: Sequence[str], split: str) -> None:
    if not shards:
        raise UserError(f"{folder}: no {split}-*.parquet beside the other split")
    for shard in shards:
        name = Path(shard).name
        if not (match := _SHARD.fullmatch(name)):
            continue  # a name without "-of-": the number of rows tells whether one is missing
        for index in range(int(match["total"])):
            sibling = f"{split}-{index:0{len(match['index'])}d}-of-{match['total']}"
            if not any(Path(other).name.startswith(sibling) for other in shards):
                raise UserError(f"{folder / shard}: its sibling {sibling}.parquet is missing")


def read_shards(folder: Path, names: Sequence[str], labels: Sequence[str]) -> Iterator[Record]:
    """The encoded images of some shards; `labels` names the label columns that may be there, the best first."""
    for name in names:
        path = folder / name
        with _opened(path) as file:
            column = _label_column(file.schema_arrow, labels, path)
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=["img.bytes", column]):
                images, numbers = batch.column("img").to_pylist(), batch.column(column).to_pylist()
                for image, label in zip(images, numbers, strict=True):
                    place = f"{path} row {row}"
                    if image is None or image["bytes"] is None or label is None:
                        raise UserError(f"{place}: no image bytes or no label")
                    yield Record(place, image["bytes"], label)
                    row += 1


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`; what pyarrow says about a damaged one becomes a UserError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged Parquet file ({one_line(error)})") from None


def _label_column(schema: Any, labels: Sequence[str], path: Path) -> str:
    """The first of `labels` that the schema has; UserError unless it and `img` have the types needed."""
    import pyarrow as pa

    columns = ", ".join(schema.names)
    label = next((name for name in labels if name in schema.names), None)
    if label is None or "img" not in schema.names:
        raise UserError(f"{path}: columns {columns}; needed are img and {' or '.join(labels)}")
    for name in ("img", label):
        if schema.names.count(name) > 1:
            raise UserError(f"{path}: columns {columns}; {name} may be there once")
    image_type, label_type = schema.field("img").type, schema.field(label).type
    if not pa.types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise UserError(f"{path}: column img is {image_type}, needed is a struct with bytes and path")
    encoded = image_type.field("bytes").type
    if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
        raise UserError(f"{path}: column img.bytes is {encoded}, needed is binary")
    if not pa.types.is_integer(label_type):
        raise UserError(f"{path}: column {label} is {label_type}, needed are integers")
    return label
