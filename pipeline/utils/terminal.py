"""Standard output and standard error of a command: what comes from files cannot control the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from pipeline.utils.text import without_controls


class _Escaped:
    """A text stream that shows control characters as their escape sequences while it is `active`."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.active = stream, True

    def write(self, text: str) -> int:
        self.stream.write(without_controls(text) if self.active else text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Within the block, everything printed has its control characters escaped; see `raw_stderr`."""
    before = sys.stdout, sys.stderr
    escaped = [_Escaped(stream) for stream in before]
    sys.stdout, sys.stderr = (cast("TextIO", stream) for stream in escaped)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in escaped:  # colorama, which Ray uses, keeps them and resets the colours when Python ends
            stream.active = False


def raw_stderr() -> TextIO:
    """Return standard error as it is, for tables and bars of `rich`, which move the cursor and have colours."""
    return sys.stderr.stream if isinstance(sys.stderr, _Escaped) else sys.stderr
