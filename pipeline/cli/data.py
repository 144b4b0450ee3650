"""Commands that prepare the settings and the data."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.options import DATA, Commands, add_command

if TYPE_CHECKING:
    from pipeline.settings.tree import Data


def _compose(commands: Commands) -> None:
    command = add_command(commands, "compose", _run_compose, "compose a profile from conf/ into params.yaml")
    command.add_argument("profile")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. data.source=/path/to/shards"
    )
    command.add_argument("--override", type=Path, metavar="FILE", help="YAML put over it, e.g. best.yaml of a search")


def _run_compose(options: argparse.Namespace) -> None:
    from pipeline.settings import config

    if options.override:
        from pipeline.tuning.override import read_arguments

        options.overrides = [*read_arguments(options.override), *options.overrides]
    params = Path(config.PARAMS)
    before = params.read_bytes() if params.exists() else None
    tree = config.compose(options.profile, options.overrides, params)
    print(f"{params}: {'is' if params.read_bytes() == before else 'now holds'} profile {tree.profile}")


def _fetch(commands: Commands) -> None:
    command = add_command(commands, "fetch", _run_fetch, "get the raw data of a data set and verify them")
    command.add_argument("dataset")
    command.add_argument(
        "--source",
        help="'official', or local data: for cifar10 and cifar100 the archive, a folder with it or its batches, Parquet"
        " files, or class folders of lossless images; for imagenet a folder with train/<class>/*.JPEG and"
        " val/<class>/*.JPEG, or Kaggle's, optionally with excluded.txt;"
        " default: data.source of params.yaml, if it is for this data set, else official",
    )


def _run_fetch(options: argparse.Namespace) -> None:
    from pipeline import data
    from pipeline.data.image_folder import LISTING, read_listing

    source = options.source or _configured_source(options.dataset)
    record, raw = data.fetch(options.dataset, source, DATA), data.raw_folder(DATA, options.dataset)
    if LISTING in record.files:
        print(f"{raw}: {len(read_listing(record, raw))} images counted and listed ({record.folder(raw)})")
    else:
        print(f"{raw}: {len(record.files)} files verified ({record.kind})")


def _configured_source(dataset: str) -> str:
    found = _configured(dataset)
    return found.source if found else "official"


def _configured(dataset: str) -> Data | None:
    """What params.yaml says about a data set, if it is for this one."""
    from pipeline.settings import config

    if not Path(config.PARAMS).exists():
        return None
    found = config.load().data
    return found if found.name == dataset else None


def _prepare(commands: Commands) -> None:
    command = add_command(
        commands,
        "prepare",
        _run_prepare,
        "decode a data set once into arrays, or check and pack images (on the Ray cluster of RAY_ADDRESS, if set)"
        " and copy them to data.remote (if params.yaml names one)",
    )
    command.add_argument("dataset")


def _run_prepare(options: argparse.Namespace) -> None:
    from pipeline import data
    from pipeline.data.packing import pack_here
    from pipeline.data.shards import UNUSUAL
    from pipeline.launch import ray_pack

    configured = _configured(options.dataset)  # first: a mistake in the settings shall not show after hours of packing
    pack_shards = ray_pack.pack_over_cluster if os.environ.get("RAY_ADDRESS") else pack_here
    manifest = data.prepare(options.dataset, DATA, pack_shards)
    print(
        f"{data.prepared_folder(DATA, options.dataset)}: {manifest['train_images']} training and"
        f" {manifest['test_images']} test images, channel mean {_numbers(manifest['channel_mean'])},"
        f" standard deviation {_numbers(manifest['channel_std'])}"
    )
    if manifest.get("excluded"):
        print(f"{manifest['excluded']} validation images are excluded")
    for kind, count in manifest.get("unusual", {}).items():
        print(f"{count} images are {kind}; they are named in {UNUSUAL} there and read as RGB")
    if configured and configured.remote:
        _upload(data.prepared_folder(DATA, options.dataset), configured.remote)


def _upload(prepared: Path, url: str) -> None:
    from pipeline.data.remote import upload

    sent = upload(prepared, url)
    print(f"{url}: {len(sent)} files sent" if sent else f"{url}: all of it is there already, nothing is sent")


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.8f}" for value in values)


def _corrupt(commands: Commands) -> None:
    command = add_command(
        commands,
        "corrupt",
        _run_corrupt,
        "draw the noisy training labels of Table 5 (draw data.noise_draw of params.yaml)",
    )
    command.add_argument("dataset")
    command.add_argument("level", type=int, help="noise level in percent, e.g. 30")


def _run_corrupt(options: argparse.Namespace) -> None:
    from pipeline import data

    configured = _configured(options.dataset)
    manifest = data.corrupt(options.dataset, options.level, DATA, configured.noise_draw if configured else 0)
    total = sum(map(sum, manifest["matrix"]))
    print(
        f"{data.noisy_folder(DATA, options.dataset, options.level)}: {manifest['flipped']} of {total} labels changed"
        f" ({100 * manifest['flipped'] / total:.2f} %)"
    )


COMMANDS = (_compose, _fetch, _prepare, _corrupt)
