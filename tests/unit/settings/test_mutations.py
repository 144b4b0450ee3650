"""Mutated settings: each is refused in one line, or accepted as it is written; `-m slow` runs a thousand."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from pipeline.settings import config
from pipeline.settings.planning import build_plan
from pipeline.settings.tree import Config
from pipeline.utils.errors import UserError

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / config.PARAMS).read_text()
LIMIT = 2.0  # seconds
VALUES = (
    "null", "true", "-1", "0", "1", "2", "3.5", "1e999", ".inf", ".nan", "9" * 5000, "1" + "0" * 30, str(2**64),
    "0x1F", "!!int abc", "!!binary x", "!!set {a}", "!!python/name:os.system", "2026-99-99", "2026-01-01",
    "12:30:45", "0o7", "[]", "[1, 1]", "[50, 50]", "{}", "{a: 1}", "*x", "&x [*x]", "&x 1", "'64'", '"a\\0b"',
    '"\\ud800"', '"\\e[31m"', '"a\\nb"', "'" + "x" * 5000 + "'", ".git", "plan.json", "data/x", "../x", "/",
    "s3://", "s3://bucket/x", "nosuch://x", "digits", "cifar10", "float32", "auto", "cifar_attention92", "10", "30",
    "64", "135", "1000000000", "[0, 1, 2]", "'", '"', "[", "[" * 500 + "]" * 500,
    "[" + ", ".join(map(str, range(20000))) + "]", "}", "|", ">-", "%", "@", "`",
)  # fmt: skip


def replace_value(lines: list[str], draw: Random) -> None:
    index = draw.randrange(len(lines))
    key, colon, _ = lines[index].partition(":")
    lines[index] = f"{key}: {draw.choice(VALUES)}" if colon else f"{key[:2]}- {draw.choice(VALUES)}"


def replace_key(lines: list[str], draw: Random) -> None:
    index = draw.randrange(len(lines))
    key, colon, value = lines[index].partition(":")
    indent = key[: len(key) - len(key.lstrip())]
    lines[index] = f"{indent}{draw.choice((*VALUES, key.strip() + 'x', 'a' * 300))}{colon}{value}"


def repeat_line(lines: list[str], draw: Random) -> None:
    lines.insert(draw.randrange(len(lines)), draw.choice(lines))


def drop_line(lines: list[str], draw: Random) -> None:
    del lines[draw.randrange(len(lines))]


def swap_lines(lines: list[str], draw: Random) -> None:
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]


def change_character(lines: list[str], draw: Random) -> None:
    index = draw.randrange(len(lines))
    place = draw.randrange(len(lines[index]) + 1)
    new = draw.choice("\0\x1b\x7f\u202e\t :-#&*!|>'\"%@`{}[],?0aZé\ufeff")
    lines[index] = lines[index][:place] + new + lines[index][place + draw.randrange(2) :]


def change_number(lines: list[str], draw: Random) -> None:
    index = draw.choice([index for index, line in enumerate(lines) if re.search(r"[ -]\d+$", line)])
    lines[index] = re.sub(r"\d+$", lambda match: str(int(match[0]) + draw.randint(-2, 20)), lines[index])


def indent_line(lines: list[str], draw: Random) -> None:
    index = draw.randrange(len(lines))
    lines[index] = draw.choice(("", " ", "  ", "    ")) + lines[index].lstrip()


MUTATIONS: tuple[Callable[[list[str], Random], None], ...] = (
    replace_value, replace_value, replace_value, replace_key, change_number, change_number,
    repeat_line, drop_line, swap_lines, change_character,
    indent_line,
)  # fmt: skip


def mutated(seed: int) -> str:
    """The committed settings with one to three changes."""
    draw, lines = Random(seed), TEXT.splitlines()
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        draw.choice(MUTATIONS)(lines, draw)
    return "\n".join(lines) + "\n"


def stands_in(written: Any, taken: Any) -> bool:
    """Whether everything that is written was taken as it is."""
    if isinstance(written, dict):
        return isinstance(taken, dict) and all(key in taken and stands_in(written[key], taken[key]) for key in written)
    return bool(written == taken)


def answer(path: Path) -> str:
    """Refused or accepted; an AssertionError for an answer that is not right."""
    try:
        tree = config.load(path)
    except UserError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 1000, message
        return "refused"
    written = yaml.safe_load(path.read_text())
    assert stands_in(written, TypeAdapter(Config).dump_python(tree, mode="json"))
    plan = build_plan(tree, None)
    assert len(plan.runs) == len(tree.experiments) * len(tree.seeds)
    return "accepted"


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_settings_are_refused_in_one_line_or_accepted_as_they_are_written(count: int, tmp_path: Path) -> None:
    path, answers = tmp_path / config.PARAMS, {"refused": 0, "accepted": 0}
    config.load(ROOT / config.PARAMS)  # imports
    for seed in range(count):
        path.write_text(mutated(seed), encoding="utf-8")
        begun = time.thread_time()
        answers[answer(path)] += 1
        assert time.thread_time() - begun < LIMIT, seed
    print(f"{count} mutated settings: {answers['refused']} refused, {answers['accepted']} accepted")
    assert min(answers.values()) > count / 20
