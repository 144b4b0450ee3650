"""Which processes get huge pages."""

from __future__ import annotations

import os
import subprocess
import sys

from pipeline.training import huge_pages

PROGRAM = """
import os, sys
from pipeline.training import huge_pages
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
huge_pages.start_again()
print("on")
"""


def _lines(environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "a b", "--in-process"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_a_process_starts_again_once_with_the_same_arguments() -> None:
    bare = {name: value for name, value in os.environ.items() if name not in huge_pages.ENVIRONMENT}
    arguments = "['a b', '--in-process']"
    assert _lines(bare) == [f"None {arguments}", f"glibc.malloc.hugetlb=1 {arguments}", "on"]


def test_what_the_user_has_set_stays() -> None:
    own = "glibc.malloc.check=0"
    assert _lines(os.environ | {"GLIBC_TUNABLES": own}) == [f"{own} ['a b', '--in-process']", "on"]
