"""Ray in a process of its own, so that what happens to Ray happens to that process.

When a part of a cluster dies, Ray's C++ core aborts the process that is connected to it, or waits for ever. The command
therefore holds no connection to Ray: a second process does, and runs the controllers of Ray Train besides. The two end
each other's work: without the command that process ends the cluster, and the command ends whatever is left of a cluster
whose process, raylet or GCS died, before it starts another.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

from pipeline.launch import cluster
from pipeline.utils.errors import FailedError, UserError, one_line

Result = TypeVar("Result")

# All processes of a cluster of our own inherit this variable, whatever becomes of their parents.
MARKER = "PIPELINE_RAY_PROCESS"
SERVE = "import sys; from pipeline.launch.ray_process import serve; serve(*sys.argv[1:])"
CALLS = 1024  # at once; each is a thread
CLOSE_SECONDS = 20.0  # that a cluster of RAY_ADDRESS gets to end what this command has started there
SWEEP_SECONDS = 8.0
CONTINUE = "the same command continues"


class RayLostError(FailedError):
    """Ray, or a part of it that everything depends on, died."""


class RayProcess:
    """A process that is connected to Ray, and calls functions there. Use as a context manager.

    Args:
        root: the project folder.

    Raises:
        UserError: if the cluster of RAY_ADDRESS does not answer.
        RayLostError: if Ray does not start.
    """

    def __init__(self, root: Path) -> None:
        self._marker = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._pending: dict[int, Future[Any]] = {}  # calls without an answer, by number
        self._lock = threading.Lock()
        self._lost: str | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (Ray writes as long as the process lives)
        self._connection, theirs = multiprocessing.Pipe()
        _, started = self._expect()
        code = Path(__file__).parents[2]
        environment = os.environ | {
            MARKER: self._marker,
            "SPT_NOENV": "1",  # else the titles that Ray gives its workers overwrite the marker
            "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")])),
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(theirs.fileno()), str(root)],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,  # Ctrl-C is for the command to answer
            )
        self._receiver = threading.Thread(target=self._receive, name="ray-process", daemon=True)
        self._receiver.start()
        try:
            started.result()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> RayProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function of a module where Ray is, and return what it returns; several threads may call at once.

        Raises:
            UserError: if the function does.
            RuntimeError: if the function raises anything else, with its message.
            RayLostError: if Ray dies before it returns.
        """
        with self._lock:
            if self._lost is not None:
                raise RayLostError(self._lost)
            number, future = self._expect()
            with suppress(OSError):  # it has just died, and `_receive` says so
                self._connection.send((number, function, arguments))
        result: Result = future.result()
        return result

    def close(self) -> None:
        """End the process and all that it has started, within seconds."""
        if os.environ.get("RAY_ADDRESS"):
            with suppress(OSError, subprocess.TimeoutExpired):  # others use that cluster, too: it is left in order
                with self._lock:
                    self._connection.send(None)
                self._process.wait(CLOSE_SECONDS)
        self._end()

    def _expect(self) -> tuple[int, Future[Any]]:
        number, future = next(self._numbers), Future[Any]()
        self._pending[number] = future
        return number, future

    def _receive(self) -> None:
        reason = None
        try:
            while reason is None:
                number, succeeded, value = self._connection.recv()
                if number is None:
                    reason = value
                elif succeeded:
                    self._pending.pop(number).set_result(value)
                else:
                    self._pending.pop(number).set_exception(value)
        except (EOFError, OSError):
            reason = f"the process that runs Ray {cluster.how_it_ended(self._process.wait())}{self._last_line()}"
        self._end()  # before any call returns: a resumed run must not meet a worker that still writes
        with self._lock:
            self._lost = reason
            for future in self._pending.values():
                future.set_exception(RayLostError(reason))
            self._pending.clear()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        end_processes(self._marker)

    def _last_line(self) -> str:
        """What the process wrote last, if anything, in brackets."""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" ({last[:200]})" if last else ""


def end_processes(marker: str) -> None:
    """Kill every other process that has inherited a marker, until there is none."""
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        found = [process for process in psutil.process_iter() if _is_marked(process, marker)]
        for process in found:
            try:
                process.kill()
            except psutil.Error:
                continue
        if not found:
            return
        psutil.wait_procs(found, timeout=0.5)


def _is_marked(process: psutil.Process, marker: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(MARKER) == marker
    except (psutil.Error, OSError):  # it has ended, or belongs to somebody else
        return False


class Supervisor:
    """Ray for a launch: started again when it dies, up to a limit. Use as a context manager.

    Args:
        root: the project folder.
        limit: how often it is started again.
        note: is given a line for each time.
        stopping: whether the launch is about to end, so that Ray need not be started again.
    """

    def __init__(
        self, root: Path, limit: int, note: Callable[[str], None], stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._root, self._limit, self._note, self._stopping = root, limit, note, stopping
        self._lock = threading.Lock()
        self._restarts = 0
        self._process = self._connect()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.close()

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function where Ray is; once more after Ray has been started again.

        Raises:
            RayLostError: if Ray died more often than it may, or while the launch ends.
        """
        while True:
            process = self._process
            try:
                return process.call(function, *arguments)
            except RayLostError as lost:
                with self._lock:
                    if process is self._process:  # else another thread was first
                        self._count(str(lost))
                        self._process = self._connect()

    def _connect(self) -> RayProcess:
        while True:
            try:
                return RayProcess(self._root)
            except RayLostError as lost:
                self._count(str(lost))

    def _count(self, reason: str) -> None:
        """Count a death of Ray, and refuse to go on after too many."""
        # On a cluster of RAY_ADDRESS, workers of the lost process may go on writing for a while.
        if self._stopping() or os.environ.get("RAY_ADDRESS"):
            raise RayLostError(f"{reason}; {CONTINUE}")
        if self._restarts >= self._limit:
            raise RayLostError(f"{reason}; resources.max_failures = {self._limit} allows no more of that; {CONTINUE}")
        self._restarts += 1
        self._note(f"{reason}: Ray starts again ({self._restarts} of {self._limit}), runs continue from checkpoints")


class _Server:
    """The other end: answers calls until the command closes the connection, or dies."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.closed = threading.Event()

    def send(self, number: int | None, succeeded: bool, value: Any) -> None:
        """Answer a call; without a number, say that Ray is lost and why."""
        with self._lock, suppress(OSError):  # when the command is gone, `receive` notices it
            self._connection.send((number, succeeded, value))

    def fail(self, number: int, error: Exception) -> None:
        """Answer a call by an exception."""
        known = isinstance(error, UserError | RayLostError)
        self.send(number, False, error if known else RuntimeError(one_line(error)))

    def receive(self) -> None:
        """Take calls until there are no more."""
        with ThreadPoolExecutor(CALLS) as pool:
            try:
                while (call := self._connection.recv()) is not None:
                    pool.submit(self._answer, *call)
            except (EOFError, OSError):  # the command was killed: nobody else ends its cluster
                if not os.environ.get("RAY_ADDRESS"):
                    end_processes(os.environ[MARKER])
                    os._exit(1)
            self.closed.set()

    def _answer(self, number: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self.send(number, True, function(*arguments))
        except Exception as error:
            self.fail(number, error)


def serve(descriptor: str, root: str) -> None:
    """Connect to Ray and answer calls; ends the process."""
    connection = Connection(int(descriptor))
    os.set_inheritable(connection.fileno(), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = _Server(connection)
    threading.Thread(target=server.receive, name="calls", daemon=True).start()
    try:
        with cluster.connected(Path(root), lost=lambda reason: server.send(None, False, reason)):
            cluster.quiet()
            server.send(0, True, None)
            server.closed.wait()
    except UserError as error:
        server.fail(0, error)
    except Exception as error:
        server.fail(0, RayLostError(f"Ray does not start: {one_line(error)}"))
    os._exit(0)  # without waiting for calls that nobody waits for any more
