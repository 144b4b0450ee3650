"""Where MLflow keeps things, and how to talk to it without ever stopping a training run."""

from __future__ import annotations

import fcntl
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
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

from pipeline.utils.project import home

if TYPE_CHECKING:
    from mlflow import MlflowClient

P = ParamSpec("P")
R = TypeVar("R")

SQLITE = "sqlite:///"
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
    if not uri:
        return f"{SQLITE}{home(root).resolve() / 'mlflow.db'}"
    path = sqlite_path(uri)
    return uri if path is None else f"{SQLITE}{path.resolve()}"


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI; None for any other."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifact_root(uri: str) -> str | None:
    """Folder or URL for the artifacts of a database; None for a server, which has its own.

    Beside an SQLite database that is `mlartifacts`; for other databases `MLFLOW_DEFAULT_ARTIFACT_ROOT` says it, as it
    does to `mlflow server`.
    """
    path = sqlite_path(uri)
    if path is not None:
        return str(path.resolve().parent / "mlartifacts")
    if urlsplit(uri).scheme in ("http", "https"):
        return None
    return os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or str(Path("mlartifacts").resolve())


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
                    "MLflow at %s: %s. Nothing is lost: `python -m pipeline track --sync` logs it from the files.",
                    redacted(self.uri),
                    " ".join(str(error).split())[:300],
                )


@functools.cache
def store(uri: str) -> Store:
    """The store of a URI in this process."""
    return Store(uri)


def survives(
    function: Callable[Concatenate[MlflowClient, P], R],
) -> Callable[Concatenate[str, P], R | None]:
    """Turn a function of a client into one of a URI that gives None, after one warning, when MLflow fails.

    It is called again where another process got in its way, so it must be idempotent.
    """

    @functools.wraps(function)
    def call(uri: str, *args: P.args, **kwargs: P.kwargs) -> R | None:
        target = store(uri)
        for attempt in range(ATTEMPTS):
            try:
                result = function(target.client(), *args, **kwargs)
            except Exception as error:
                if not _of_mlflow(error):
                    raise
                if attempt + 1 < ATTEMPTS and any(sign in str(error) for sign in (LOCKED, *DUPLICATES)):
                    time.sleep(_PAUSES.uniform(0, 0.1 * 2**attempt))
                    continue
                target.failed(error)
                return None
            target.answered()
            return result
        raise AssertionError("the last attempt returns")

    return cast("Callable[Concatenate[str, P], R | None]", call)


def _of_mlflow(error: Exception) -> bool:
    """Whether an error is one of MLflow, its database, its drivers or the network, told without importing MLflow.

    Whatever comes out of its code is, such as what the client of an artifact store raises.
    """
    if isinstance(error, OSError | ImportError) or _package(type(error).__module__) in ("mlflow", "sqlalchemy"):
        return True
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(_package(frame.f_globals.get("__name__", "")) == "mlflow" for frame in frames)


def _package(module: str) -> str:
    return module.partition(".")[0]


def probe(uri: str) -> None:
    """Raise OSError unless the server of a URI, if it has one, answers within PROBE_SECONDS.

    MLflow's own attempts take minutes: ten of them for a database, and a timeout of 120 s for a server.
    """
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
            file = stack.enter_context(database.with_name(f"{database.name}.lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(uri: str) -> MlflowClient:
    """Import MLflow (6 to 9 CPU-seconds, hence so late) and open the store, which makes or checks its tables."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow import MlflowClient

    # A locked database is tried again: no traceback for it. The tables of a new one are no news.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.get_experiment("0")
    return client


@survives
def _greet(client: MlflowClient) -> bool:
    return True


def initialise(uri: str) -> bool:
    """Create or migrate the store, once, on the driver; False after one warning where it cannot be reached."""
    return _greet(uri) is True
