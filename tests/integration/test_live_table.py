"""What `launch` shows on a terminal while it trains, and what Ctrl-C does there.

`PICTURES=docs/pictures` saves it.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from pipeline.runs.records import Provenance
from tests.integration.conftest import Clone
from tests.integration.killing import PATIENCE, pipeline, settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
ROWS, COLUMNS = 30, 110
REDRAW = re.compile(r"\r?(?:\x1b\[1A)?(?:\x1b\[2K(?:\x1b\[1A)?)+")  # over the lines of the table as it was
ROW = re.compile(
    r"(?P<run>\S+) +training +(?P<step>\d+)/(?P<steps>\d+) +(?P<epoch>[\d.]+)"
    r"(?: +(?P<loss>[\d.]+) +(?P<error>[\d.]+) %)? +(?P<speed>\d+) +(?P<left>.*(?:s|min))$"
)


def on_a_terminal(clone: Clone, ready: Callable[[str], bool], *arguments: str) -> tuple[int, str]:
    """Start a command of the pipeline and press Ctrl-C once what it has written is `ready`.

    Returns:
        its exit status, and all that it wrote to its terminal.
    """
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=clone.root,
        env={**clone.environment, "TERM": "xterm-256color"},
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    written, pressed, deadline = "", False, time.monotonic() + PATIENCE
    try:
        while part := _read(terminal):
            written += part.replace("\r\n", "\n")
            if not pressed and ready(written):
                process.send_signal(signal.SIGINT)
                pressed = True
            assert pressed or time.monotonic() < deadline, written[-3000:]
        return process.wait(PATIENCE), written
    finally:
        process.kill()
        os.close(terminal)


def _read(terminal: int) -> str:
    """What comes next; nothing once the last one has closed its end."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:
        return ""


def tables(written: str) -> list[str]:
    """Every state of the live table."""
    return [part for part in REDRAW.split(written) if "images/s" in part and "waiting" in part]


def rows(table: str) -> list[re.Match[str]]:
    """Of the runs that train."""
    lines = Text.from_ansi(table).plain.splitlines()
    return [match for line in lines if (match := ROW.match(line.strip()))]


def has_come_far_enough(written: str) -> bool:
    """Whether the newest table has a run that was evaluated."""
    return any(row["error"] for table in tables(written)[-1:] for row in rows(table))


def test_a_terminal_shows_the_runs_in_one_live_table_and_ctrl_c_stops_them_cleanly(clone: Clone) -> None:
    for command in (("fetch", "digits"), ("prepare", "digits"), ("corrupt", "digits", "30")):
        pipeline(clone, *command)
    settings(clone, iterations=135, milestones=[81, 113], batch_size=64, batch_norm_group=64)
    status, written = on_a_terminal(clone, has_come_far_enough, "launch")
    plain = Text.from_ansi(written).plain
    assert status == 130, plain
    assert "runs pending: " in plain
    assert "stopping: every run takes a checkpoint first" in plain
    assert plain.rstrip().endswith("the same command continues")

    shown = next(table for table in reversed(tables(written)) if any(row["error"] for row in rows(table)))
    assert "run state step epoch loss test error images/s left" in " ".join(Text.from_ansi(shown).plain.split())
    for row in rows(shown):
        assert 0 < int(row["step"]) <= int(row["steps"]) == 135
        assert int(row["speed"]) > 0
    assert re.search(r"\d of 3 ended, \d waiting, .* so far; \d+ % of the work done", Text.from_ansi(shown).plain)
    begun = [folder for folder in (clone.root / "runs").glob("*-s0-*") if list(folder.glob("checkpoints/*/state.json"))]
    assert begun
    for folder in begun:
        provenance = Provenance.read(folder)
        assert provenance is not None and provenance.status == "paused"
    if "PICTURES" in os.environ:
        save(shown, PROJECT / os.environ["PICTURES"] / "launch.svg")


def save(table: str, path: Path) -> None:
    """Draw a terminal, in the fonts of whoever looks at it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    lines = list(Text.from_ansi(table.strip()).split("\n"))
    first = next(number for number, line in enumerate(lines) if line.plain.startswith("run "))  # below the log
    console.print(*lines[first:], sep="\n")
    svg = console.export_svg(title="python -m pipeline launch")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
