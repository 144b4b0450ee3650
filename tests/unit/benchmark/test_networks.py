"""The benchmark of the networks: what is measured, and what becomes of what cannot be."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from models import create_model, list_models
from pipeline.benchmark import networks
from pipeline.benchmark.hardware import hardware_slug
from pipeline.benchmark.networks import (
    Case,
    Settings,
    benchmark_networks,
    interquartile_range,
    measure,
    paper_sizes,
)
from pipeline.benchmark.table import read_table
from pipeline.cli import main
from pipeline.utils.errors import UserError

SETTINGS = Settings("cpu", threads=1, repeats=3, batch_size=2)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """No repeats beyond those asked for."""
    monkeypatch.setattr(networks, "MEASURED_SECONDS", 0.0)


def test_every_network_is_measured_at_the_papers_sizes() -> None:
    sizes = {name: paper_sizes(name) for name in list_models()}
    assert sizes["attention92"] == sizes["preresnet200"] == (224, 320)
    assert all(sizes[name] == (299,) for name in list_models("*inception*"))
    assert all(sizes[name] == (32,) for name in list_models("cifar_*"))
    assert sizes["attention56"] == sizes["resnet152"] == sizes["resnext101_32x4d"] == (224,)


@pytest.mark.parametrize(
    ("precision", "channels_last", "memory_format"),
    [("float32", False, "contiguous"), ("bfloat16", True, "channels_last")],
)
def test_a_network_is_measured_evaluating_one_image_and_training_a_batch(
    precision: str, channels_last: bool, memory_format: str
) -> None:
    settings = Settings("cpu", 1, precision, channels_last, repeats=3, batch_size=2)
    evaluation, training = measure(Case("cifar_attention56", 8, settings, "abc"))
    assert (evaluation.mode, evaluation.batch_size) == ("evaluation", 1)
    assert (training.mode, training.batch_size) == ("training", 2)
    for row in (evaluation, training):
        assert (row.network, row.image_size, row.status, row.commit) == ("cifar_attention56", 8, "measured", "abc")
        assert (row.precision, row.memory_format, row.threads) == (precision, memory_format, 1)
        assert (row.warm_up, row.repeats, row.torch) == (1, 3, torch.__version__)
        assert row.median_ms is not None and row.median_ms > 0
        assert row.iqr_ms is not None and row.iqr_ms >= 0
        assert row.images_per_second == pytest.approx(1000 * row.batch_size / row.median_ms)
        assert row.peak_memory_mib is None and row.joules_per_image is None  # a processor does not tell
        assert "inferred" in row.our_reading


@pytest.mark.parametrize("mode", networks.MODES)
def test_steps_compute_with_ordinary_numbers_however_often_they_are_repeated(mode: str) -> None:
    """Overflow, or gradients that fade to subnormal numbers, would change the time of a step."""
    made: list[torch.nn.Module] = []
    seen: list[torch.Tensor] = []

    def watched(*arguments: object, **options: object) -> torch.nn.Module:
        made.append(create_model("cifar_attention56", 10))
        made[0].fc.register_forward_hook(lambda _module, _inputs, scores: seen.append(scores.detach()))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "create_model", watched)
        step = networks._step(Case("cifar_attention56", 8, SETTINGS, ""), mode, torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in made[0].parameters()]
    for _ in range(4):
        step()
    assert all(scores.abs().max() < 1e3 for scores in seen)
    after = list(made[0].parameters())
    assert all(torch.equal(first, second) for first, second in zip(before, after, strict=True))
    assert mode == "evaluation" or all(parameter.grad is not None and parameter.grad.any() for parameter in after)


def test_quick_steps_are_repeated_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "MEASURED_SECONDS", 0.5)
    row = next(measure(Case("cifar_attention56", 8, SETTINGS, "")))
    assert SETTINGS.effort.repeats < row.repeats <= networks.MOST_REPEATS


def test_what_does_not_fit_in_memory_is_a_row_that_says_so_beside_what_fits() -> None:
    settings = Settings("cpu", 1, repeats=1, batch_size=10**13)
    evaluation, training = measure(Case("cifar_attention56", 8, settings, ""))
    assert evaluation.status == "measured"
    assert (training.status, training.median_ms, training.repeats) == ("out of memory", None, 0)


def test_any_other_mistake_is_no_row() -> None:
    with pytest.raises(ValueError, match="too small"):
        next(measure(Case("cifar_attention56", 4, SETTINGS, "")))


def test_what_does_not_fit_in_time_is_a_row_that_says_so_and_the_next_network_follows(tmp_path: Path) -> None:
    told = []
    path = benchmark_networks(SETTINGS, "cifar_wrn*", seconds=0.05, folder=tmp_path, report=told.append)
    rows = read_table(path)
    assert rows == told
    assert [(row.network, row.mode, row.status, row.median_ms) for row in rows] == [
        (name, mode, "out of time", None)
        for name in ("cifar_wrn16_8", "cifar_wrn28_10")
        for mode in ("evaluation", "training")
    ]
    assert path == tmp_path / f"{hardware_slug(rows[0].hardware)}.csv"


def test_a_table_that_cannot_be_extended_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = benchmark_networks(SETTINGS, "cifar_wrn16_8", seconds=0.05, folder=tmp_path)
    path.write_text("network,speed\nattention56,fast\n")
    with pytest.raises(UserError, match="not a table of measured speed"):
        benchmark_networks(SETTINGS, "cifar_wrn16_8", folder=tmp_path, report=pytest.fail)
    assert path.read_text() == "network,speed\nattention56,fast\n"


def test_a_pattern_that_matches_nothing_is_refused_with_the_names() -> None:
    with pytest.raises(UserError, match=r"--only 'resnet18': matches no network; there are attention56, .*cifar_"):
        benchmark_networks(SETTINGS, "resnet18")


def test_the_spread_is_the_interquartile_range() -> None:
    assert interquartile_range([5.0, 1.0, 2.0, 3.0, 4.0]) == 2.0
    assert interquartile_range([7.0]) == 0.0


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("cpu: Intel(R) Xeon(R) Processor (AMX), 2 cores", "cpu-intel-xeon-processor-amx-2-cores"),
        ("cuda: NVIDIA H100 80GB HBM3", "cuda-nvidia-h100-80gb-hbm3"),
    ],
)
def test_a_kind_of_hardware_has_one_file(name: str, slug: str) -> None:
    assert hardware_slug(name) == slug


def test_the_command_writes_the_table_of_this_hardware_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--only", "cifar_wrn16_8", "--device", "cpu", "--threads", "1", "--repeats", "1", "--batch-size", "1"]
    assert main(["benchmark", "networks", *arguments]) == 0
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.parent == tmp_path / "benchmarks" / "networks"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["mode"], row["status"], row["image_size"]) for row in rows] == [
        ("evaluation", "measured", "32"), ("training", "measured", "32")
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [["--only", "resnet18"], ["--device", "cuda"]])
def test_a_mistake_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main(["benchmark", "networks", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {arguments[0]}")
    assert captured.err.count("\n") == 1
