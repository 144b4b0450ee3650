"""PostgreSQL under MLflow: behind a server, and spoken to directly."""

from __future__ import annotations

import getpass
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.tracking import store
from tests.integration.mlflow_server import MlflowServer
from tests.unit.tracking.run_folders import make_spec, write_run


def programs() -> Path | None:
    """Folder of PostgreSQL's programs, which Debian keeps off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def account() -> str | None:
    """The user that the database runs as: PostgreSQL refuses root."""
    if os.getuid():
        return getpass.getuser()
    return next((entry.pw_name for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody")), None)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="needs PostgreSQL (Debian: postgresql)"),
    pytest.mark.skipif(account() is None, reason="PostgreSQL refuses root, and there is no user postgres"),
]


class Database:
    """A PostgreSQL server of the test's own, on the loopback interface."""

    def __init__(self, root: Path) -> None:
        self._data, self._user = root / "data", account()
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        password = secrets.token_hex(16)
        self.uri = f"postgresql://mlflow:{password}@127.0.0.1:{self._port}/postgres"
        (root / "password").write_text(password)
        if os.getuid() == 0:
            shutil.chown(root, self._user)
            shutil.chown(root / "password", self._user)
        self._run("initdb", "--no-sync", "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={root / 'password'}")

    def _run(self, program: str, *arguments: str) -> None:
        self._start(program, *arguments).wait()

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        folder = programs()
        assert folder is not None
        user = {"user": self._user, "group": pwd.getpwnam(str(self._user)).pw_gid} if os.getuid() == 0 else {}
        return subprocess.Popen(
            [str(folder / program), "-D", str(self._data), *arguments],
            cwd=self._data.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user,
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        listen = ["-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._data.parent)]
        self._process = self._start("postgres", *listen)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, "PostgreSQL did not start"
                assert time.monotonic() < deadline, "PostgreSQL takes no connections"
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop it at once, cutting its connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None


@pytest.fixture
def database() -> Iterator[Database]:
    pytest.importorskip("psycopg", reason="needs psycopg, SQLAlchemy's driver for PostgreSQL")
    root = Path(tempfile.mkdtemp(prefix="postgresql-"))  # not below pytest's folders: those are closed to other users
    database = Database(root)
    try:
        database.start()
        yield database
    finally:
        database.stop()
        shutil.rmtree(root)


def steps(client: MlflowClient, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "test/error")]


def test_a_server_whose_database_dies_and_comes_back_loses_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "REST_SECONDS", 0.5)
    with MlflowServer(tmp_path, database.uri) as server:
        assert tracking.initialise(server.uri)
        client = MlflowClient(server.uri)
        folder = write_run(tmp_path, make_spec(), 1, "running")
        run_id = tracking.open_run(server.uri, folder, profile="digits")
        tracking.sync(server.uri, [folder])
        write_run(tmp_path, make_spec())

        database.stop()
        begun = time.monotonic()
        assert tracking.close_run(server.uri, run_id, folder, "FINISHED") is None
        assert time.monotonic() - begun < 60
        database.start()

        assert tracking.close_run(server.uri, run_id, folder, "FINISHED") == run_id
        assert tracking.sync(server.uri, [folder]) == tracking.SyncResult(runs=1, created=0, points=0, failed=())
        assert steps(client, run_id) == [1, 2, 3]
        assert client.get_run(run_id).data.params["network"] == "cifar_attention56"
    assert len([record for record in caplog.records if record.name == "pipeline.tracking"]) == 1


def test_the_database_itself_is_a_store_with_artifacts_elsewhere(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    uri = tracking.tracking_uri(tmp_path)
    folder = write_run(tmp_path, make_spec("attention92"))
    run_id = tracking.close_run(uri, None, folder, "FINISHED")
    assert steps(MlflowClient(uri), run_id) == [1, 2, 3]
    database.stop()
    assert tracking.close_run(uri, run_id, folder, "FINISHED") is None
    database.start()
    password = uri.split(":")[2].split("@")[0]
    assert password not in caplog.text
