"""What a worker has around it: samples of its machine, and nothing of MLflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.launch.worker_folder import worker_folder
from pipeline.runs.execution import Execution
from pipeline.training.environment import hostname

NO_MLFLOW = """
import sys
from pathlib import Path
from pipeline.launch import ray_train
from pipeline.runs.execution import Execution
from pipeline.training.loop import train
from pipeline.launch.worker_folder import worker_folder
with worker_folder(Execution(Path(sys.argv[1]), Path(), None, "digits", system_metrics=True), first_here=True):
    pass
print(*sorted(name for name in ("mlflow", "dvc", "optuna", "pydantic", "sqlalchemy") if name in sys.modules))
"""


def test_the_first_worker_on_a_machine_samples_it_if_the_profile_wants_that(tmp_path: Path) -> None:
    for number, (wanted, first) in enumerate([(True, True), (True, False), (False, True)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        execution = Execution(folder, tmp_path, None, "digits", system_metrics=wanted)
        with worker_folder(execution, first_here=first) as here:
            assert here == execution
        assert [path.name for path in folder.iterdir()] == [f"system-{hostname()}.csv"] * (wanted and first)


def test_a_worker_imports_no_mlflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_MLFLOW, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []
    assert len(list(tmp_path.glob("system-*.csv"))) == 1
