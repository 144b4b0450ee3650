"""A connection to Ray: to a cluster that is there, or to one of our own, whose processes are watched."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.data.remote import CACHE
from pipeline.training import huge_pages
from pipeline.utils.cores import available_cores
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.signals import Interrupted, interruptible

# Named after the systems where this is the default: Ray then listens on the loopback interface alone.
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
CONNECT_SECONDS = 10.0  # within which the head of a cluster must accept a connection

# Whether Ray Train passes preemption notices on to runs; not needed on a cluster of our own.
WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# Ray's settings, for the driver and every process that it starts. By default a controller takes up to 5 s to notice
# the end of a run; looking five times a second took 3 % of a core.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # for one run in a process; ours control many
    WATCHER: "0",
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "31536000",  # runs wait for their turn
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_prestart_worker_first_driver": "0",  # a connection would wait for idle workers, for ever where none starts
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` each worker would resolve an environment of its own
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    **huge_pages.ENVIRONMENT,
}

# Ray's sockets lie below its temporary folder, and the path of a socket has at most 107 bytes.
LONGEST_TMPDIR = 38
SHORT_TMPDIRS = ("/tmp", "/var/tmp", "/dev/shm")
VITAL = {"raylet": "raylet", "gcs_server": "GCS"}  # by the names of their processes
WATCH_SECONDS = 0.5  # between two looks at the processes of a cluster of our own


def _leave(reason: str) -> None:
    """End this process at once, and what it has started: Ray would wait for ever for a part that has died."""
    import psutil

    print(f"error: {reason}; what was finished is kept", file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


@contextmanager
def connected(root: Path, lost: Callable[[str], None] = _leave) -> Iterator[None]:
    """Connect this process to Ray: to the cluster of RAY_ADDRESS, or to one that is started on this machine.

    Args:
        root: the project folder.
        lost: is called by a thread, once, with a reason, when the raylet or the GCS of the started cluster has died.

    Raises:
        UserError: if the cluster of RAY_ADDRESS does not answer.
    """
    address = os.environ.get("RAY_ADDRESS") or None
    if not address:
        os.environ.setdefault(SEVERAL_MACHINES, "0")
        _shorten_temporary_folder()
    for name, value in {**ENVIRONMENT, WATCHER: "1" if address else "0"}.items():
        os.environ.setdefault(name, value)
    import ray

    passed_on = [*ENVIRONMENT, *({CACHE} & os.environ.keys())]
    runtime_env: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in passed_on}}
    if address:
        _check_answers(address)
        runtime_env["working_dir"] = str(root)
        runtime_env["excludes"] = ["/data/", "/runs/", "/results/", "/published/", "/reports/", "/.dvc/", "mlflow.db*"]
    else:
        search = [str(root), os.environ.get("PYTHONPATH", "")]
        runtime_env["env_vars"]["PYTHONPATH"] = os.pathsep.join(filter(None, search))
        runtime_env["py_executable"] = shlex.quote(sys.executable)  # Ray puts it into a command of bash as it is
    try:
        ended = _start(address, runtime_env, lost)
    except ValueError as error:
        raise UserError(f"{f'RAY_ADDRESS = {address!r}' if address else 'Ray'}: {one_line(error)}") from None
    except ConnectionError as error:
        raise UserError(
            f"RAY_ADDRESS = {address!r}: {one_line(error)}; if it asks for a token, RAY_AUTH_MODE=token and the same"
            " token in ~/.ray/auth_token or RAY_AUTH_TOKEN are needed here, too"
        ) from None
    try:
        yield
    finally:
        ended.set()
        ray.shutdown()


def _shorten_temporary_folder() -> None:
    """Have Ray use a temporary folder whose path is short enough for its sockets.

    Raises:
        UserError: if there is none.
    """
    current = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR", "")
    if len(os.fsencode(current)) > LONGEST_TMPDIR:
        usable = [folder for folder in SHORT_TMPDIRS if os.access(folder, os.W_OK | os.X_OK)]
        if not usable:
            raise UserError(
                f"TMPDIR = {current!r}: too long for the sockets of Ray, which allow {LONGEST_TMPDIR} characters;"
                " RAY_TMPDIR names another folder"
            )
        os.environ["RAY_TMPDIR"] = usable[0]


def _watch(lost: Callable[[str], None], ended: threading.Event) -> None:
    """Look after the processes without which a cluster of our own is of no use, from their start on."""
    import psutil

    here, found = psutil.Process(), dict[str, psutil.Process]()
    while not ended.wait(WATCH_SECONDS):
        if len(found) < len(VITAL):
            found |= {child.name(): child for child in here.children() if child.name() in VITAL}
        for name, process in found.items():
            try:
                status = process.wait(0)
            except psutil.TimeoutExpired:
                continue
            if not ended.wait(WATCH_SECONDS):
                lost(f"the {VITAL[name]} of Ray {'died' if status is None else how_it_ended(status)}")
            return


def how_it_ended(status: int) -> str:
    """Describe an exit status as `subprocess` has it, e.g. ``was killed by SIGKILL``."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens: Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "://" in address:
        return  # `auto`, or a scheme of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS = {address!r}: no Ray cluster answers there ({one_line(error)})") from None


def _start(address: str | None, runtime_env: dict[str, Any], lost: Callable[[str], None]) -> threading.Event:
    """Call `ray.init`, again where a busy machine did not start Ray's processes within the 30 s that Ray allows.

    Returns:
        An event to be set before Ray is shut down, for the thread that looks after a cluster of our own.
    """
    import ray

    for attempt in (1, 2, 3):
        ended = threading.Event()
        if not address:
            threading.Thread(target=_watch, args=(lost, ended), name="ray-watch", daemon=True).start()
        try:
            with _own_signals():
                ray.init(
                    address=address or "local",  # never another cluster that happens to run on this machine
                    include_dashboard=None if address else False,
                    num_cpus=None if address else available_cores(),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env=runtime_env,
                )
            if not address:
                _stop_log_monitor()
            return ended
        except BaseException as error:
            ended.set()
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
            ray.shutdown()
    raise AssertionError("the last attempt raises")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from handling SIGTERM, and raise what comes while it starts afterwards.

    Ray's own handler raises within its C++ code, which aborts the process.
    """
    from ray._private import utils

    theirs = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        with interruptible() as interrupted:
            yield
    finally:
        utils.set_sigterm_handler = theirs
    if interrupted.is_set():
        raise Interrupted(interrupted.number)


def _stop_log_monitor() -> None:
    """Stop the process that reads all logs ten times a second (3 % of a core) for a driver that shows none of them."""
    from ray._private import worker

    worker._global_node.kill_log_monitor(check_alive=False)


def quiet() -> None:
    """Keep Ray Train's own messages off the terminal: `launch` prints its own."""
    for name in ("ray", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    assert "ray" in sys.modules
