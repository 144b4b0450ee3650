"""Fixtures that several areas share."""

from __future__ import annotations

import os
import signal

# Before anything imports torch or Ray: quiet, one thread, no telemetry.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Ray's workers give way to everything else (15); beside other tests they would wait for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")

# Started in the background or by nohup, this process ignores signals, and all that it starts would, too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_DFL)
