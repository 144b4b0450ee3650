"""Huge pages for tensors in main memory: the same numbers in less time on the CPU (`benchmark training` says how much).

glibc's malloc asks Linux for them where GLIBC_TUNABLES says so when a process starts.
"""

from __future__ import annotations

import os
import sys

ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def start_again() -> None:
    """Replace this process by the same command with huge pages, unless GLIBC_TUNABLES is set already."""
    if sys.platform == "linux" and not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ENVIRONMENT)
