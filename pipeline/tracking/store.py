"""Where MLflow keeps things, and how to call it so that its errors never stop a training run."""

from __future__ import annotations

import functools
import http.client
import logging
import os
import random
import socket
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

from filelock import FileLock

from pipeline.tracking.database import (
    ARTIFACTS,
    SYNC,
    UnusableError,
    check,
    put_aside,
    relocate,
    sqlite_path,
    sqlite_uri,
)
from pipeline.utils.errors import one_line
from pipeline.utils.files import real_path
from pipeline.utils.project import home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from tenacity import Retrying

P = ParamSpec("P")
R = TypeVar("R")

PROBE_SECONDS = 3.0  # how long a server may take to say that it is there
REST_SECONDS = 15.0  # after silence, how long it is left alone
ATTEMPTS = 8  # where another process writes at the same time, with pauses of 6 s in all in the mean
LOCKED = "database is locked"  # after 20 s, MLflow's own busy timeout, or at once where waiting would be a deadlock
DUPLICATES = ("IntegrityError", "UniqueViolation")  # two processes added the same; the next attempt finds it there
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PAUSES = random.SystemRandom()  # others pause for another time, and the global generator stays as it is

logger = logging.getLogger("pipeline.tracking")


def tracking_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the SQLite database `mlflow.db` of the project folder `root`.

    The path of an SQLite database is made absolute, so that the URI means the same to every process.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    path = sqlite_path(uri) if uri else real_path(home(root)) / "mlflow.db"
    return uri if uri and path is None else sqlite_uri(path or root)


def artifact_root(uri: str) -> str | None:
    """URI of the folder for the artifacts of a database; None for a server, which has its own.

    Beside an SQLite database that is `mlartifacts`; for other databases `MLFLOW_DEFAULT_ARTIFACT_ROOT` says it, as it
    does to `mlflow server`.
    """
    path = sqlite_path(uri)
    if path is not None:
        return (real_path(path).parent / ARTIFACTS).as_uri()
    if urlsplit(uri).scheme in ("http", "https"):
        return None
    return os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or real_path(ARTIFACTS).as_uri()


class Store:
    """One tracking store as this process sees it: its client, made when first needed, and whether it answers."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.lock = threading.RLock()
        self._client: MlflowClient | None = None
        self._healthy = False
        self._warned = False
        self._silent_until = 0.0

    def client(self) -> MlflowClient:
        """The client; raises OSError where the store does not answer, at once for a while after it did not."""
        with self.lock:
            if not self._healthy:
                self._probe()
            if self._client is None:
                with exclusive(self.uri):
                    self._client = _open(self.uri)
            return self._client

    def _probe(self) -> None:
        if time.monotonic() < self._silent_until:
            raise ConnectionError("no answer a moment ago")
        try:
            probe(self.uri)
        except UnusableError:
            raise
        except OSError:
            self._silent_until = time.monotonic() + REST_SECONDS
            raise

    def answered(self) -> None:
        """Remember that the store works."""
        with self.lock:
            self._healthy, self._warned = True, False

    def failed(self, error: Exception) -> None:
        """Remember that the store failed, and say so once until it answers again."""
        with self.lock:
            self._healthy = False
            if LOCKED in str(error):
                self._silent_until = time.monotonic() + REST_SECONDS
            if not self._warned:
                self._warned = True
                logger.warning(
                    "MLflow at %s: %s. Nothing is lost, the files have it all: %s",
                    redacted(self.uri),
                    one_line(error)[:300],
                    cure(self.uri, error),
                )


@functools.cache
def store(uri: str) -> Store:
    """The store of a URI in this process."""
    return Store(uri)


def tolerate_errors(
    function: Callable[Concatenate[MlflowClient, P], R],
) -> Callable[Concatenate[str, P], R | None]:
    """Turn a function of a client into one of a URI that gives None, after one warning, when MLflow fails.

    It is called again where another process got in its way, so it must be idempotent.
    """

    @functools.wraps(function)
    def call(uri: str, *args: P.args, **kwargs: P.kwargs) -> R | None:
        target = store(uri)
        try:
            result = _attempts()(lambda: function(target.client(), *args, **kwargs))
        except Exception as error:
            if not _of_mlflow(error):
                raise
            target.failed(error)
            return None
        target.answered()
        return result

    return cast("Callable[Concatenate[str, P], R | None]", call)


def _attempts() -> Retrying:
    """Return what calls a function again while other processes write to MLflow's database."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    return Retrying(
        retry=retry_if_exception(_is_conflict),
        stop=stop_after_attempt(ATTEMPTS),
        # tenacity's own random pauses draw from the global generator
        wait=lambda state: _PAUSES.uniform(0, 0.1 * 2 ** (state.attempt_number - 1)),
        reraise=True,
    )


def _is_conflict(error: BaseException) -> bool:
    """Return whether MLflow failed because another process wrote at the same time."""
    known = isinstance(error, Exception) and _of_mlflow(error)
    return known and any(sign in str(error) for sign in (LOCKED, *DUPLICATES))


def _of_mlflow(error: Exception) -> bool:
    """Whether an error comes from MLflow, its database, its drivers or the network; MLflow is not imported for that.

    Any error raised below MLflow's code counts, e.g. one of the client of an artifact store.
    """
    if isinstance(error, OSError | ImportError) or _package(type(error).__module__) in (
        "mlflow",
        "sqlalchemy",
        "sqlite3",
    ):
        return True
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(_package(frame.f_globals.get("__name__", "")) == "mlflow" for frame in frames)


def _package(module: str) -> str:
    return module.partition(".")[0]


def cure(uri: str, error: Exception | None = None) -> str:
    """What to type, so that MLflow gets what it lacks, after an error (by default silence) of the store of a URI."""
    path, reason = sqlite_path(uri), str(error)
    if isinstance(error, UnusableError):
        return error.cure
    if "out-of-date database schema" in reason:
        return f"mlflow db upgrade {quote(uri)} && {SYNC}"
    if path is not None and "malformed" in reason:
        return put_aside(path)
    if path is not None and isinstance(error, OSError):
        return f"make {path.parent} a folder that can be written, then {SYNC}"
    if path is not None or LOCKED in reason:
        return SYNC
    return f"unset MLFLOW_TRACKING_URI, or start that server; then {SYNC}"


def probe(uri: str) -> None:
    """Check within PROBE_SECONDS that a store can be used; MLflow's own attempts take minutes.

    Raises:
        OSError: if the server of the URI does not answer, or its SQLite file is not a database of this MLflow.
    """
    path = sqlite_path(uri)
    if path is not None:
        check(path)
        return
    no_proxy_for_loopback()
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise ConnectionError(f"not a URI ({error})") from None
    kind = parts.scheme.split("+")[0]
    if kind in ("http", "https"):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            return  # whoever refuses is there
        except urllib.error.URLError as error:
            raise ConnectionError(f"no answer ({error.reason})") from None
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"no answer ({error})") from None
    elif parts.hostname and kind in PORTS:
        address = (parts.hostname, port or PORTS[kind])
        try:
            socket.create_connection(address, timeout=PROBE_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"no answer ({error})") from None


def no_proxy_for_loopback() -> None:
    """Let this process and its children reach servers of this machine directly, without a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"]))


def redacted(uri: str) -> str:
    """A URI without the user and password that it may hold."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.rpartition("@")[2]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.password else uri


@contextmanager
def exclusive(uri: str) -> Iterator[None]:
    """Keep out the other threads of this process and, of an SQLite database, all other processes."""
    database = sqlite_path(uri)
    with store(uri).lock, ExitStack() as stack:
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(database.with_name(f"{database.name}.lock"), fallback_to_soft=False, poll_interval=0.01)
            stack.enter_context(lock)
        yield


def _open(uri: str) -> MlflowClient:
    """Import MLflow (6 to 9 CPU-seconds, hence so late) and open the store, which makes or checks its tables."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow import MlflowClient

    # A locked database is tried again: no traceback for it. That tables are created is not worth a line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.get_experiment("0")
    path = sqlite_path(uri)
    before = relocate(path) if path else None
    if before:
        logger.warning("MLflow at %s was moved or copied from %s: its artifacts are now those here", uri, before)
    return client


@tolerate_errors
def _ping(client: MlflowClient) -> bool:
    return True  # the client was made


def initialise(uri: str) -> bool:
    """Create the store where there is none, once, on the driver; False, after one warning, where it cannot be used."""
    return _ping(uri) is True
