"""Steps of training under several settings, which take turns, so that load of other programs meets all of them alike.

    python -m benchmarks.turns memory [--network cifar_attention56] [--pairs 12]    # settings of glibc's malloc
    python -m benchmarks.turns compile                                              # eager against torch.compile

Each setting has a process of its own, which waits while another one trains. The table goes to
`benchmarks/turns/<what>-<hardware>.csv`, one row for each turn; the ratios that are printed are medians over the turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

BATCH, SIZE, CLASSES = 64, 32, 10
STEPS = 4  # of a turn
HUGE = "glibc.malloc.hugetlb=1"
KEEP = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=8589934592"
SETTINGS = {
    "memory": {
        "default": {},
        "huge pages": {"GLIBC_TUNABLES": HUGE},
        "huge pages, freed memory kept": {"GLIBC_TUNABLES": f"{HUGE}:{KEEP}"},
    },
    "compile": {
        "eager": {"GLIBC_TUNABLES": f"{HUGE}:{KEEP}"},
        "compiled": {"GLIBC_TUNABLES": f"{HUGE}:{KEEP}", "COMPILE": "1"},
    },
}
FOLDER = Path(__file__).parent / "turns"


def measure(what: str, network: str, pairs: int, threads: int) -> pd.DataFrame:
    """Return seconds a step for each setting (column) and turn (row)."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.turns", "worker", "--network", network, "--threads", str(threads)],
            env={**{k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, environment in SETTINGS[what].items()
    }
    try:
        for process in processes.values():
            _turn(process)  # builds the network and takes steps that do not count
        names = list(processes)
        rows = []
        for turn in range(pairs):
            order = names if turn % 2 == 0 else names[::-1]
            found = {name: _turn(processes[name]) for name in order}
            rows.append({name: found[name] for name in names})
            print(" ".join(f"{1000 * found[name]:.0f}" for name in names), "ms a step", flush=True)
    finally:
        for process in processes.values():
            process.kill()
    return pd.DataFrame(rows)


def _turn(process: subprocess.Popen[str]) -> float:
    """Let a process take its turn; return its seconds a step."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def work(network: str, threads: int) -> None:
    """Take a turn for each line of the standard input."""
    import torch
    from torch.nn import functional as F

    from models import create_model
    from pipeline.training import environment

    environment.make_deterministic(threads)
    model = create_model(network, CLASSES).train().to(memory_format=torch.channels_last)
    forward = environment.compiled(model) if os.environ.get("COMPILE") else model
    x = torch.rand(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    y = torch.zeros(BATCH, dtype=torch.int64)
    for _ in sys.stdin:
        begun = time.perf_counter()
        for _ in range(STEPS):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = forward(x)
            F.cross_entropy(logits.float(), y).backward()
        print((time.perf_counter() - begun) / STEPS, flush=True)


def main() -> None:
    """Measure, write the table and print the ratios to the first setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*SETTINGS, "worker"))
    parser.add_argument("--network", default="cifar_attention56")
    parser.add_argument("--pairs", type=int, default=12, help="turns of each setting; default: 12")
    parser.add_argument("--threads", type=int, default=1, help="default: 1, as the profiles have it")
    options = parser.parse_args()
    if options.what == "worker":
        work(options.network, options.threads)
        return
    import torch

    from pipeline.benchmark.hardware import hardware_name, hardware_slug

    table = measure(options.what, options.network, options.pairs, options.threads)
    path = FOLDER / f"{options.what}-{options.network}-{hardware_slug(hardware_name(torch.device('cpu')))}.csv"
    path.parent.mkdir(exist_ok=True)
    table.round(4).to_csv(path, index_label="turn")
    first = table.columns[0]
    for name in table.columns:
        ratios = table[first] / table[name]
        low, median, high = ratios.quantile([0.25, 0.5, 0.75])
        print(
            f"{name}: {1000 * table[name].median():.0f} ms a step, {median:.2f} times {first} ({low:.2f} to {high:.2f})"
        )
    print(path)


if __name__ == "__main__":
    main()
