"""The live table: runs as they come along, and the whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.launch import progress
from pipeline.launch.progress import ProgressTable
from tests.unit.tracking.run_folders import make_spec, write_run


def write_progress(folder: Path, step: int, error: float | None = None) -> None:
    content = {
        "iteration": step,
        "iterations": 60,
        "epoch": step / 20,
        "images_per_second": 128.0,
        "seconds_left": 90.0,
    }
    content |= {"test_error": error, "train_loss": None if error is None else 1.25}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").write_text(json.dumps(content))


def shown(table: ProgressTable) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(table.table())
    return out.getvalue()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_table_has_a_row_for_every_run_that_goes_and_a_line_for_the_whole(
    tmp_path: Path, clock: list[float]
) -> None:
    specs = [make_spec(seed=seed) for seed in range(4)]
    with ProgressTable(4, Console(file=io.StringIO(), force_terminal=True, width=140)) as table:
        table.expect({spec.name: 100.0 for spec in specs})
        for spec in specs[:3]:
            table.begun(spec, tmp_path / spec.folder_name)
        write_progress(tmp_path / specs[0].folder_name, 30, 12.5)  # it goes on from a checkpoint
        table.refresh()
        clock[0] = 60.0
        write_progress(tmp_path / specs[0].folder_name, 45, 12.5)
        write_progress(tmp_path / specs[1].folder_name, 0)
        write_run(tmp_path, specs[2])
        table.refresh()
        table.ended(specs[2], "finished", None)
        lines = [" ".join(line.split()) for line in shown(table).splitlines()]
    assert lines[0] == "run state step epoch loss test error images/s left"
    assert lines[1] == "attention56-s0 training 45/60 2.2 1.2500 12.50 % 128 1 min 30 s"
    assert lines[2] == "attention56-s1 training 0/60 0.0 128 1 min 30 s"
    # Of 400 units 75 and 100 are done, 50 of them before this launch: 125 units took a minute, 225 are left.
    whole = "1 of 4 ended, 1 waiting, 1 min 00 s so far; 44 % of the work done, 1 min 48 s left"
    assert whole in " ".join(lines[3:])


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"iteration": null}', '{"images_per_second": null}'])
def test_a_run_that_says_nothing_of_use_stays_as_it_was(content: str, tmp_path: Path) -> None:
    spec = make_spec()
    with ProgressTable(1, Console(file=io.StringIO(), width=140)) as table:
        table.begun(spec, tmp_path)
        write_progress(tmp_path, 30, 12.5)
        table.refresh()
        (tmp_path / "progress.json").write_text(content)
        table.refresh()
        assert "30/60" in shown(table)


def test_a_reason_is_shown_as_it_is(tmp_path: Path) -> None:
    out = io.StringIO()
    spec = make_spec()
    with ProgressTable(1, Console(file=out, width=140)) as table:
        table.begun(spec, tmp_path)
        table.ended(spec, "failed", "no such key [/protocol] in [red]")
    assert "failed, 0 s: no such key [/protocol] in [red]" in out.getvalue()
