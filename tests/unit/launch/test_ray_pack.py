"""Packing over a cluster, as far as it needs none: who packs, and what is refused before anything is packed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline import data
from pipeline.cli import main
from pipeline.data.packing import pack_here
from pipeline.launch import cluster, placement, ray_pack
from pipeline.utils.errors import UserError


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    data.fetch("imagenet-mini", "official", root / "data")
    return root


@pytest.mark.parametrize(("address", "expected"), [("", pack_here), ("10.0.0.1:6379", ray_pack.pack_over_cluster)])
def test_a_cluster_packs_only_where_ray_address_names_one(
    address: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    packers: list[object] = []
    manifest = {"train_images": 1, "test_images": 1, "channel_mean": [], "channel_std": []}
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(data, "prepare", lambda dataset, root, packer: packers.append(packer) or manifest)
    assert main(["prepare", "imagenet-mini"]) == 0
    assert packers == [expected]


@pytest.mark.parametrize("place", ["raw/imagenet-mini", "prepared"])
def test_what_a_node_does_not_see_is_refused_in_one_line(
    fetched: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nodes_that_do_not_see(folder: Path, name: str) -> list[str]:
        assert folder.is_absolute() and (folder / name).exists(), "workers have another working directory"
        return ["10.0.0.2"] if folder.is_relative_to(fetched / "data" / place) else []

    monkeypatch.chdir(fetched)
    monkeypatch.setattr(cluster, "connected", lambda root: nullcontext())
    monkeypatch.setattr(placement, "nodes_that_do_not_see", nodes_that_do_not_see)
    with pytest.raises(UserError) as caught:
        data.prepare("imagenet-mini", "data", ray_pack.pack_over_cluster)
    assert str(caught.value).startswith(f"{fetched / 'data' / place}: not seen from 10.0.0.2; ")
    assert "\n" not in str(caught.value)
    assert not [path for path in (fetched / "data" / "prepared").rglob("*") if path.is_file()]
