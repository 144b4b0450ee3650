"""`verify-resume`: ten kills, and that it would notice a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.launch.verify_resume import COMPARED, differences
from tests.integration.conftest import Clone
from tests.integration.killing import few_images, pipeline


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_kills_at_random_moments_leave_every_file_as_it_would_be(clone: Clone) -> None:
    few_images(clone)
    pipeline(clone, "plan")
    done = pipeline(clone, "verify-resume", "--kills", "10", "--iterations", "30", "--kill-seed", "7")
    assert "attempt 11: " in done.stdout
    assert f"equal bit for bit after 10 kills: {', '.join(COMPARED)}" in done.stdout
    refused = clone.run("python", "-m", "pipeline", "verify-resume", "--kills", "30", "--iterations", "30", check=False)
    assert refused.returncode == 2
    assert "error: --kills 30: a run of 30 iterations takes at most 25" in refused.stderr


def test_every_difference_is_named(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("straight", "killed")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for name in COMPARED:
            (folder / name).write_text("the same")
        (folder / "history.csv").write_text(f"iteration,loss\n10,0.5\n20,0.{number}\n")
        save_file({"a": torch.zeros(2), "b": torch.full((2,), float(number))}, folder / "weights.safetensors")
    history, weights = differences(*folders)
    assert "history.csv" in history and "from line 3" in history
    assert "weights.safetensors" in weights and "in ['b']" in weights
