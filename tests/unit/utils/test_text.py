"""Text from files does not control terminals, pages and spreadsheets."""

from __future__ import annotations

import csv
import io
import sys

import pytest

from pipeline.utils.files import csv_text
from pipeline.utils.terminal import escaped_output, raw_stderr
from pipeline.utils.text import markdown, markdown_code, spreadsheet_cell, without_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\n", "a\tb\n"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m\x07\r", r"\x9b31m\x07\r"),
        ("\udcff", r"\udcff"),
        ("\u202egpj", r"\u202egpj"),
        ("1\u00a0000 ± é", "1\u00a0000 ± é"),
    ],
)
def test_control_characters_are_escaped_wherever_a_command_prints(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert without_controls(text) == shown
    outside = sys.stderr
    with escaped_output():
        sys.stdout.write(text)
        sys.stderr.writelines([text])
        assert raw_stderr() is outside
    assert sys.stderr is raw_stderr() is outside
    assert capsys.readouterr() == (shown, shown)


def test_a_library_that_keeps_the_stream_can_reset_the_colours_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with escaped_output():
        kept = sys.stdout
    kept.write("\x1b[0m")
    assert capsys.readouterr().out == "\x1b[0m"


def test_markdown_stays_text() -> None:
    escaped = markdown("<b> **x** [l](y) | `z`\n\x1b")
    assert escaped == r"\<b\> \*\*x\*\* \[l\](y) \| \`z\` \\x1b"
    assert markdown(escaped) == escaped
    assert markdown_code("a`b\nc\x1b") == r"`a'b c\x1b`"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1|x", "'=1+1|x"),
        ("-2+3", "'-2+3"),
        ("+cmd", "'+cmd"),
        ("@x", "'@x"),
        ("\tx", r"'\tx"),
        ("\rx", r"'\rx"),
        ("a\nb\x1b", r"a\nb\x1b"),
        ("-0.5", "-0.5"),
        ("+1.5e-05", "+1.5e-05"),
        (-0.5, -0.5),
        (None, None),
        ("plain", "plain"),
    ],
)
def test_no_cell_of_a_table_is_a_formula(cell: object, written: object) -> None:
    assert spreadsheet_cell(cell) == written
    [_, [found, _]] = csv.reader(io.StringIO(csv_text(("a", "b"), [(cell, 1)])))
    assert found == ("" if written is None else str(written))


def test_a_table_that_is_read_back_keeps_its_text() -> None:
    assert csv_text(("a", "b"), [("-x\t", 1)], exact=True) == "a,b\n-x\t,1\n"
