"""What `launch` shows on a terminal while it trains, read from a terminal of the test's own.

`PICTURES=docs/pictures` saves it.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from tests.integration.conftest import Clone
from tests.integration.killing import pipeline, settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
ROWS, COLUMNS = 30, 110
REDRAW = re.compile(r"\r?(?:\x1b\[1A)?(?:\x1b\[2K(?:\x1b\[1A)?)+")  # over the lines of the table as it was
ROW = re.compile(
    r"(?P<run>\S+) +training +(?P<step>\d+)/(?P<steps>\d+) +(?P<epoch>[\d.]+)"
    r"(?: +(?P<loss>[\d.]+) +(?P<error>[\d.]+) %)? +(?P<speed>\d+) +(?P<left>.*(?:s|min))$"
)


def on_a_terminal(clone: Clone, *arguments: str) -> tuple[int, str]:
    """Exit status of a command of the pipeline, and all that it wrote to its terminal."""
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
    written = bytearray()
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the last one has closed its end
            break
        if not part:
            break
        written += part
    os.close(terminal)
    return process.wait(), written.decode().replace("\r\n", "\n")


def tables(written: str) -> list[str]:
    """Every state of the live table."""
    return [part for part in REDRAW.split(written) if "images/s" in part and "waiting" in part]


def rows(table: str) -> list[re.Match[str]]:
    """Of the runs that train."""
    lines = Text.from_ansi(table).plain.splitlines()
    return [match for line in lines if (match := ROW.match(line.strip()))]


def test_a_terminal_shows_one_live_table_of_the_runs_and_the_whole(clone: Clone) -> None:
    for command in (("fetch", "digits"), ("prepare", "digits"), ("corrupt", "digits", "30")):
        pipeline(clone, *command)
    settings(clone, iterations=135, milestones=[81, 113], batch_size=64, batch_norm_group=64)
    status, written = on_a_terminal(clone, "launch", "--stop-after", "1")
    assert status == 0, written
    plain = Text.from_ansi(written).plain
    assert "time unknown: no run was measured here yet" in plain
    assert "the same command continues" in plain

    seen = tables(written)
    assert seen, written[-3000:]
    for table in seen:
        titles = " ".join(Text.from_ansi(table).plain.split())
        assert "run state step epoch loss test error images/s left" in titles
    best = max(seen, key=lambda table: sum(1 + bool(row["error"]) for row in rows(table)))
    assert rows(best), best
    for row in rows(best):
        assert 0 < int(row["step"]) <= int(row["steps"]) == 135
        assert int(row["speed"]) > 0
    assert re.search(r"\d of 3 ended, \d waiting, .* so far; \d+ % of the work done", Text.from_ansi(best).plain)
    if "PICTURES" in os.environ:
        save(best, PROJECT / os.environ["PICTURES"] / "launch.svg")


def save(table: str, path: Path) -> None:
    """Draw a terminal, in the fonts of whoever looks at it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    lines = list(Text.from_ansi(table.strip()).split("\n"))
    first = next(number for number, line in enumerate(lines) if line.plain.startswith("run "))  # below the log
    console.print(*lines[first:], sep="\n")
    svg = console.export_svg(title="python -m pipeline launch")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
