from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from pipeline.training.batches import Epoch, TrainingStream, cut, normalise

N, H, W = 23, 6, 5


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, H, W, 3), dtype=np.uint8)


def stream(images: np.ndarray, **changes: object) -> TrainingStream:
    options = {"seed": 1, "batch_size": 8, "padding": 2, "flip": True, **changes}
    mean = np.full((H, W, 3), 0.25, dtype=np.float32)
    return TrainingStream(images, np.arange(N), mean, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_the_shares_of_any_number_of_workers_make_up_the_batch_of_one(images: np.ndarray, workers: int) -> None:
    alone = stream(images)
    together = [stream(images, rank=rank, world_size=workers) for rank in range(workers)]
    for iteration in range(12):  # four epochs
        x, y = alone.batch(iteration)
        shares = [worker.batch(iteration) for worker in together]
        assert torch.equal(torch.cat([share[0] for share in shares]), x)
        assert torch.equal(torch.cat([share[1] for share in shares]), y)


def test_a_batch_does_not_depend_on_the_batches_before_it(images: np.ndarray) -> None:
    walked, jumped = stream(images), stream(images)
    for iteration in range(9):
        last = walked.batch(iteration)
    for mine, theirs in zip(jumped.batch(8), last, strict=True):
        assert torch.equal(mine, theirs)


def test_every_epoch_of_the_stream_holds_each_image_once_across_the_borders_of_batches(images: np.ndarray) -> None:
    labels = torch.cat([stream(images).batch(iteration)[1] for iteration in range(3 * N)])
    epochs = labels[: 23 * N].reshape(23, N)
    assert (epochs.sort(1).values == torch.arange(N)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 23, "two epochs have the same order"


def test_order_crops_and_mirrors_are_drawn_as_they_always_were() -> None:
    """They change a run's numbers: whoever draws otherwise raises NUMERICS and writes the new checksum here."""
    epoch = Epoch.draw(0, 3, 1000, 4, True)
    content = b"".join(part.numpy().tobytes() for part in (epoch.order, epoch.top, epoch.left, epoch.mirrored))
    assert hashlib.sha256(content).hexdigest()[:16] == "d5cdc756d20a48e4"


def test_another_seed_gives_other_batches(images: np.ndarray) -> None:
    assert not torch.equal(stream(images, seed=1).batch(0)[1], stream(images, seed=2).batch(0)[1])


def test_global_random_state_is_neither_read_nor_changed(images: np.ndarray) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = stream(images).batch(0)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(stream(images).batch(0)[0], first)


def test_a_crop_is_the_window_of_the_zero_padded_image_mirrored_where_drawn(images: np.ndarray) -> None:
    mean = torch.full((H, W, 3), 0.25)
    x = normalise(torch.from_numpy(images), mean)
    drawn = Epoch.draw(seed=3, epoch=0, images=N, padding=2, flip=True)
    got = cut(x, drawn, padding=2)
    for i in range(N):
        padded = np.zeros((H + 4, W + 4, 3), dtype=np.float32)
        padded[2:-2, 2:-2] = images[i].astype(np.float32) / 255 - np.float32(0.25)
        top, left = int(drawn.top[i]), int(drawn.left[i])
        window = padded[top : top + H, left : left + W]
        expected = window[:, ::-1] if drawn.mirrored[i] else window
        np.testing.assert_allclose(got[i].numpy(), expected, atol=1e-6)


def test_offsets_and_flips_are_uniform() -> None:
    drawn = Epoch.draw(seed=0, epoch=0, images=90_000, padding=4, flip=True)
    for offsets in (drawn.top, drawn.left):
        counts = torch.bincount(offsets, minlength=9)
        assert len(counts) == 9
        assert (counts - 10_000).abs().max() < 500  # five standard deviations
    assert abs(drawn.mirrored.double().mean() - 0.5) < 0.01
    assert not Epoch.draw(seed=0, epoch=0, images=100, padding=4, flip=False).mirrored.any()


def test_the_memory_format_is_as_asked(images: np.ndarray) -> None:
    assert stream(images).batch(0)[0].is_contiguous(memory_format=torch.channels_last)
    assert stream(images, channels_last=False).batch(0)[0].is_contiguous()


def test_a_batch_that_workers_cannot_share_evenly_is_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="batch_size = 8 cannot be shared evenly by 3 workers"):
        stream(images, world_size=3)
