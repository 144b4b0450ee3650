"""Trained networks as ONNX files and as folders for the model hub, from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from models import find_network, load_trained
from models.weights import load_model
from pipeline.cli import main
from pipeline.cli.networks import find_weights
from pipeline.runs import export
from pipeline.runs.export import export_hub
from pipeline.utils.errors import UserError
from tests.plans import make_plan
from tests.unit.runs.trained_runs import CLASSES, SIZE, run_spec, write_run, write_weights


def test_weights_are_found_by_their_file_and_by_their_runs_folder(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "run")
    assert find_weights(str(path), tmp_path) == path
    assert find_weights(str(path.parent), tmp_path) == path


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.safetensors: no such file; only a finished run"):
        find_weights(str(tmp_path), tmp_path)


def test_a_name_that_is_none_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'attention56-s0': neither .* and there is no plan\.json"):
        find_weights("attention56-s0", tmp_path)
    make_plan([replace(run_spec(), experiment="attention92", seed=1)]).write(tmp_path / "plan.json")
    with pytest.raises(UserError, match="nor one of the runs attention92-s1"):
        find_weights("attention56-s0", tmp_path)


def test_a_run_of_the_plan_is_found_by_its_name(tmp_path: Path) -> None:
    make_plan([run_spec()]).write(tmp_path / "plan.json")
    with pytest.raises(UserError, match="only a finished run of the store has its weights"):
        find_weights(run_spec().name, tmp_path)
    path = write_run(tmp_path / "runs" / run_spec().folder_name)
    assert find_weights(run_spec().name, tmp_path) == find_weights(run_spec().folder_name, tmp_path) == path


def test_without_the_exporter_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert main(["export", str(write_weights(tmp_path)), "--onnx", str(tmp_path / "n.onnx")]) == 2
    assert capsys.readouterr().err == (
        "error: --onnx: needs onnx and onnxscript; python -m pip install onnx onnxscript\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--float-images", "--image-size", "7"], "smallest allowed are 8x8"),
        (["--float-images"], "not a run's configuration; say --image-size"),
        ([], "weights.safetensors: carries no normalisation (an earlier version wrote it); --float-images"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = write_weights(tmp_path, old=True)
    (tmp_path / "config.json").write_text("{}")
    assert main(["export", str(path), "--onnx", str(tmp_path / "n.onnx"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "n.onnx").exists()


def test_a_size_that_the_mean_image_does_not_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_weights(tmp_path)
    assert main(["export", str(path), "--onnx", str(tmp_path / "n.onnx"), "--image-size", "32"]) == 2
    assert "images of 32x32 pixels do not fit the mean image of 16x16 pixels" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_an_exported_run_computes_the_networks_scores_at_its_image_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: bool
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path, target = write_run(tmp_path, old=old), tmp_path / "n.onnx"
    assert main(["export", str(tmp_path), "--onnx", str(target), *(["--float-images"] if old else [])]) == 0
    printed = "float images [N, 3, 16, 16] normalised as in training" if old else "uint8 images [N, 16, 16, 3]"
    assert f"cifar_attention56, {printed} -> scores [N, 4]" in capsys.readouterr().out
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    given = torch.randn(3, 3, SIZE, SIZE, generator=generator) if old else images
    (scores,) = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"]).run(
        ["scores"], {"images": given.numpy()}
    )
    with torch.no_grad():
        expected = (load_model(path).eval() if old else load_trained(path))(given).numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_folder_for_the_hub_has_weights_configuration_and_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = write_run(tmp_path / "run"), tmp_path / "hub"
    assert main(["export", str(path.parent), "--hub", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert {file.name for file in target.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert load_trained(target / "model.safetensors").classes == CLASSES
    config = json.loads((target / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["label_names"]) == (
        "cifar_attention56", 4, list(CLASSES)
    )  # fmt: skip
    assert config["run"]["identity"] == run_spec().identity


def test_the_cards_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    export_hub(write_run(tmp_path / "run"), tmp_path / "hub")
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.license == "mit"
    assert card.data.datasets == ["uoft-cs/cifar10"]
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 93.1875, "cifar10")


def test_the_card_says_how_the_network_was_trained_and_how_it_is_used(tmp_path: Path) -> None:
    spec = run_spec("digits", noise=30)
    export_hub(write_run(tmp_path / "run", spec), tmp_path / "hub")
    text = (tmp_path / "hub" / "README.md").read_text()
    for said in (
        "6.81 % on 360 images, one run",
        "digits, 1,000 training images at 16x16 pixels, with 30 % of the training labels made wrong",
        "100 iterations of 64 images, float32, seed 0",
        "mask = local, t = 1",
        spec.folder_name,
        "c0ffee",
        f"Our reading of the paper: {find_network('cifar_attention56').our_reading}.",
        'load_trained("model.safetensors")',
    ):
        assert said in text
    assert "datasets" not in text.split("---")[1]  # the hub has no such data set


def test_what_cannot_go_to_the_hub_is_one_line_and_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("")
    run = str(write_run(tmp_path / "run").parent)
    damaged = write_run(tmp_path / "damaged")
    damaged.with_name("metrics.json").write_text('{"test_error": null}')
    alone, old = str(write_weights(tmp_path / "alone")), str(write_run(tmp_path / "old", old=True))
    for arguments, message in (
        ([run, "--hub", str(full)], "exists and is not an empty folder"),
        ([alone, "--hub", str(tmp_path / "hub")], "is not the folder of a finished run"),
        ([old, "--hub", str(tmp_path / "hub")], "carries no class names and no normalisation"),
        ([str(damaged), "--hub", str(tmp_path / "hub")], "metrics.json: damaged"),
        ([run, "--hub", str(tmp_path / "hub"), "--image-size", "32"], "only with --onnx"),
        ([run, "--hub", str(tmp_path / "hub"), "--float-images"], "only with --onnx"),
    ):
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "hub").exists()
    assert [file.name for file in full.iterdir()] == ["thesis.tex"]
