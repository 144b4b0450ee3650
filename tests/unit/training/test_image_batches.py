"""Training batches and test images from image shards: the same for any number of workers and threads, anywhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.trained import Normalise
from pipeline import data
from pipeline.data.shards import ImageShards, open_image_shards
from pipeline.training.crops import ATTEMPTS, TEST_SHARE, Box, centre_box, random_box
from pipeline.training.decoding import DeviceDecoder, ThreadDecoder, decode
from pipeline.training.image_batches import Draw, ImageStream, ImageTestSet, Normaliser
from pipeline.utils.errors import UserError
from tests.unit.data.image_tree import SmallImageNet, encode, write_tree

N, CROP = 12, 16


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(data.DATASETS, "imagenet", SmallImageNet())
    data.fetch("imagenet", str(write_tree(tmp_path / "tree")), tmp_path)
    data.prepare("imagenet", tmp_path)
    return data.prepared_folder(tmp_path, "imagenet")


@pytest.fixture
def images(prepared: Path) -> ImageShards:
    return open_image_shards(prepared)


@pytest.fixture
def stream(images: ImageShards) -> Callable[..., ImageStream]:
    def make(threads: int = 1, **changes: object) -> ImageStream:
        options = {"seed": 1, "batch_size": 8, "crop": CROP, "flip": True, "colour": 0.1, "iterations": 40, **changes}
        return ImageStream(images, pool=ThreadPoolExecutor(threads), **options)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("workers", [2, 4])
def test_the_shares_of_any_number_of_workers_make_up_the_batch_of_one(
    stream: Callable[..., ImageStream], workers: int
) -> None:
    alone = stream(threads=3)
    together = [stream(rank=rank, world_size=workers) for rank in range(workers)]
    for iteration in range(5):  # more than three epochs
        x, y = alone.batch(iteration)
        shares = [worker.batch(iteration) for worker in together]
        assert torch.equal(torch.cat([share[0] for share in shares]), x)
        assert torch.equal(torch.cat([share[1] for share in shares]), y)


def test_a_batch_does_not_depend_on_the_batches_before_it(stream: Callable[..., ImageStream]) -> None:
    walked, jumped, back = stream(), stream(), stream()
    for iteration in range(6):
        last = walked.batch(iteration)
    back.batch(30)  # others were begun ahead
    for other in (jumped.batch(5), back.batch(5)):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(other, last, strict=True))


def test_every_epoch_holds_each_image_once(stream: Callable[..., ImageStream], images: ImageShards) -> None:
    made = stream(batch_size=6)
    for epoch in range(2):
        labels = torch.cat([made.batch(2 * epoch + k)[1] for k in range(2)])
        assert sorted(labels.tolist()) == images.train.labels.tolist()


def test_nothing_is_decoded_beyond_the_last_iteration(stream: Callable[..., ImageStream]) -> None:
    made = stream(iterations=3)
    for iteration in range(3):
        made.batch(iteration)
    assert not made._begun


def test_global_random_state_is_neither_read_nor_changed(stream: Callable[..., ImageStream]) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = stream().batch(0)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(stream().batch(0)[0], first)


def test_a_training_image_is_the_drawn_box_mirrored_coloured_and_normalised(
    stream: Callable[..., ImageStream], images: ImageShards
) -> None:
    batch, labels = stream().batch(0)
    draw = Draw.of(1, 0, 8, True, 0.1)
    order = torch.randperm(N, generator=_generator("1/order/0"))[:8]
    assert labels.tolist() == images.train.labels[order].tolist()
    for k, number in enumerate(order.tolist()):
        box = random_box(*images.train.size(number), draw.crops[k].tolist())
        pixels = decode(images.train.encoded(number), box, CROP)
        pixels = pixels[:, ::-1] if draw.mirrored[k] else pixels
        mean, std = (np.array(v, np.float32) for v in (images.channel_mean, images.channel_std))
        expected = (pixels / np.float32(255) + draw.colours[k].numpy() - mean) / std
        np.testing.assert_allclose(batch[k].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert draw.mirrored.any() and not draw.mirrored.all()


def _generator(text: str) -> torch.Generator:
    import hashlib

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


def test_crops_have_the_scales_and_aspects_of_the_paper_and_lie_in_the_image() -> None:
    draws = Draw.of(0, 0, 4000, True, 0.1).crops.tolist()
    boxes = [random_box(400, 400, numbers) for numbers in draws]
    assert all(0 <= b.left <= 400 - b.width and 0 <= b.top <= 400 - b.height for b in boxes)
    shares = np.array([b.width * b.height / 160_000 for b in boxes])
    ratios = np.array([b.width / b.height for b in boxes])
    assert 0.075 < shares.min() < 0.1 and 0.95 < shares.max() <= 1
    assert 0.73 < ratios.min() < 0.77 and 1.3 < ratios.max() < 1.37
    assert abs(np.log(ratios).mean()) < 0.03


def test_an_image_that_no_crop_fits_into_is_cut_in_the_middle() -> None:
    assert random_box(10, 1000, [[0.99, 0.5, 0.5, 0.5]] * ATTEMPTS) == Box(493, 0, 13, 10)
    assert random_box(1000, 9, [[0.99, 0.5, 0.5, 0.5]] * ATTEMPTS) == Box(0, 494, 9, 12)


@pytest.mark.parametrize("size", [224, 299, 320])
def test_the_test_crop_is_the_middle_at_each_size_of_the_paper(size: int) -> None:
    encoded = encode(0, 400, 600, quality=95)
    got = decode(encoded, centre_box(400, 600), size)
    image = Image.open(io.BytesIO(encoded))
    short = round(size * 8 / 7)
    resized = image.resize((round(short * 1.5), short), Image.Resampling.BILINEAR)
    left, top = (resized.width - size) // 2, (short - size) // 2
    expected = np.asarray(resized.crop((left, top, left + size, top + size)))
    assert got.shape == (size, size, 3)
    # one interpolation instead of one and a shift by half a pixel
    assert np.abs(got.astype(int) - expected).max() <= 6


def test_a_large_image_is_decoded_at_a_fraction_of_its_size_and_shows_the_same() -> None:
    encoded = encode(0, 800, 1200, quality=95)
    box = Box(100, 50, 1000, 700)
    small = decode(encoded, box, 64)
    image = Image.open(io.BytesIO(encoded))
    whole = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR, box=(100, 50, 1100, 750)))
    assert np.abs(small.astype(int) - whole).max() <= 8
    assert np.array_equal(small, decode(encoded, box, 64))


@pytest.mark.parametrize(("mode", "image_format"), [("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG")])
def test_unusual_images_are_read_as_rgb(mode: str, image_format: str) -> None:
    usual = decode(encode(5, 60, 80), Box(0, 0, 80, 60), 32)
    unusual = decode(encode(5, 60, 80, mode, image_format), Box(0, 0, 80, 60), 32)
    assert unusual.shape == (32, 32, 3)
    if mode == "L":
        assert (unusual[..., :1] == unusual).all()
    else:
        assert np.abs(unusual.astype(int) - usual).mean() < 5


def test_colours_vary_most_along_the_first_principal_component() -> None:
    colours = Draw.of(0, 0, 20_000, True, 0.1).colours
    deviations = torch.linalg.svdvals(colours - colours.mean(0)) / len(colours) ** 0.5
    assert deviations.tolist() == pytest.approx([0.02175, 0.00188, 0.00045], rel=0.03)
    assert not Draw.of(0, 0, 8, True, 0.0).colours.any() and not Draw.of(0, 0, 8, False, 0.1).mirrored.any()


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageShards:
    """Images of which some are CMYK, greyscale and PNG."""
    monkeypatch.setitem(data.DATASETS, "imagenet", SmallImageNet())
    tree = write_tree(tmp_path / "tree")
    kinds = [("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("CMYK", "JPEG")]
    for path, kind in zip(sorted(tree.glob("train/*/*.JPEG"))[2:], kinds, strict=False):
        path.write_bytes(encode(7, 50, 70, *kind))
    data.fetch("imagenet", str(tree), tmp_path)
    data.prepare("imagenet", tmp_path)
    return open_image_shards(data.prepared_folder(tmp_path, "imagenet"))


@pytest.mark.parametrize(("size", "difference"), [(32, 0.0), (8, 8.0)])
def test_whole_batches_are_decoded_as_single_images_are(mixed: ImageShards, size: int, difference: float) -> None:
    """The same but where threads decode at a fraction of the size."""
    boxes = [random_box(*mixed.train.size(k), [[0.5, 0.4, 0.3, 0.2]]) for k in range(N)]
    mirrored = [k % 2 == 0 for k in range(N)]
    with ThreadPoolExecutor(2) as pool:
        singly, whole = (
            kind(mixed.train, size, pool, torch.device("cpu")).begin(range(N), boxes, mirrored)()
            for kind in (ThreadDecoder, DeviceDecoder)
        )
    assert singly.shape == (N, size, size, 3) and singly.dtype == torch.uint8
    assert (whole.float() - singly.float()).abs().mean() <= difference


def test_nvjpeg_without_a_gpu_is_refused(stream: Callable[..., ImageStream]) -> None:
    with pytest.raises(UserError, match=r"crops\.decoder = 'nvjpeg': needs a GPU, and the run trains on cpu"):
        stream(decoder="nvjpeg")


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_each_test_image_comes_once_and_in_order(images: ImageShards, batch_size: int) -> None:
    test = ImageTestSet(images, CROP, ThreadPoolExecutor(2), torch.device("cpu"))
    test.batch_size = batch_size
    whole = list(test.batches(0, len(test)))
    assert torch.cat([labels for _, labels in whole]).tolist() == images.test.labels.tolist()
    parts = [*test.batches(0, 2), *test.batches(2, 6)]
    assert torch.equal(torch.cat([x for x, _ in parts]), torch.cat([x for x, _ in whole]))
    normalise = Normaliser(images, torch.device("cpu"), channels_last=True)
    assert torch.equal(normalise(test.first_images(3)), torch.cat([x for x, _ in whole])[:3])


def test_the_weights_of_a_run_normalise_images_as_its_tests_did(images: ImageShards) -> None:
    test = ImageTestSet(images, CROP, ThreadPoolExecutor(2), torch.device("cpu"))
    tested = torch.cat([x for x, _ in test.batches(0, 3)])
    torch.testing.assert_close(Normalise(**test.normalisation)(test.first_images(3)), tested, rtol=1e-5, atol=1e-5)
    assert (test.normalisation["image_size"], test.normalisation["crop_pct"]) == (CROP, TEST_SHARE)


def test_a_shard_that_was_damaged_is_named(prepared: Path, stream: Callable[..., ImageStream]) -> None:
    shard = prepared / "train-00000.bin"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(UserError, match=r"train-00000\.bin: \d+ bytes from \d+: cannot be decoded"):
        stream().batch(0)


@pytest.mark.parametrize("kind", [ThreadDecoder, DeviceDecoder])
def test_an_image_whose_end_was_lost_is_named(
    kind: type[ThreadDecoder] | type[DeviceDecoder], prepared: Path, images: ImageShards
) -> None:
    shard, row = prepared / "train-00000.bin", images.train.rows[3]
    content = bytearray(shard.read_bytes())
    start, end = row["offset"] + row["length"] // 2, row["offset"] + row["length"]
    content[start:end] = b"\xff\xd9" * (end - start)  # the marker of the end
    shard.write_bytes(content[: shard.stat().st_size])
    with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match=r"train-00000\.bin: .*cannot be decoded"):
        kind(images.train, CROP, pool, torch.device("cpu")).begin([3], [Box(0, 0, 30, 30)], [False])()
