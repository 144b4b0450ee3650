"""Trained networks out of the store and into ONNX files, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models import create_model
from models.weights import load_model, save_weights
from pipeline.__main__ import main
from pipeline.runs import export
from pipeline.utils.errors import UserError

NAME, CLASSES, OPTIONS = "cifar_attention56", 4, {"mask": "local", "t": 1}


def write_weights(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "weights.safetensors"
    save_weights(create_model(NAME, CLASSES, **OPTIONS), path, name=NAME, num_classes=CLASSES, options=OPTIONS)
    return path


def test_weights_are_found_by_their_file_and_by_their_runs_folder(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "run")
    assert export.find_weights(str(path), tmp_path) == path
    assert export.find_weights(str(path.parent), tmp_path) == path


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.safetensors: no such file; only a finished run"):
        export.find_weights(str(tmp_path), tmp_path)


def test_a_name_that_is_none_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'attention56-s0': neither .* and there is no plan\.json"):
        export.find_weights("attention56-s0", tmp_path)
    plan = {"profile": "p", "labels": {}, "report": {}, "execution": {}, "identity": {}, "runs": {"attention92-s1": {}}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="nor one of the runs attention92-s1"):
        export.find_weights("attention56-s0", tmp_path)


def test_without_the_exporter_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert main(["export", str(write_weights(tmp_path)), "--onnx", str(tmp_path / "n.onnx")]) == 2
    assert capsys.readouterr().err == (
        "error: --onnx: needs onnx and onnxscript; python -m pip install onnx onnxscript\n"
    )


@pytest.mark.parametrize(
    ("size", "message"), [("7", "smallest allowed are 8x8"), (None, "not a run's configuration; say --image-size")]
)
def test_what_cannot_be_exported_is_one_line_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str | None, message: str
) -> None:
    path = write_weights(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    arguments = [] if size is None else ["--image-size", size]
    assert main(["export", str(path), "--onnx", str(tmp_path / "n.onnx"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.slow
def test_an_exported_run_computes_the_networks_scores_at_its_image_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path, target = write_weights(tmp_path), tmp_path / "n.onnx"
    (tmp_path / "config.json").write_text(json.dumps({"data": {"image_size": 16}}))
    assert main(["export", str(tmp_path), "--onnx", str(target)]) == 0
    assert "images [N, 3, 16, 16] normalised as in training -> scores [N, 4]" in capsys.readouterr().out
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (scores,) = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"]).run(
        ["scores"], {"images": images.numpy()}
    )
    with torch.no_grad():
        expected = load_model(path).eval()(images).numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
