"""The commands of the command line: each reads its options, calls the stage that does the work, and says what came out.

What a command needs is imported when it runs, so that every command starts quickly.
"""

from __future__ import annotations

from pipeline.cli import benchmarking, data, networks, reporting, runs, training

ALL = (
    *data.COMMANDS,
    *training.COMMANDS,
    *runs.COMMANDS,
    *reporting.COMMANDS,
    *networks.COMMANDS,
    *benchmarking.COMMANDS,
)
