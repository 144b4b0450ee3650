from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline import tracking
from pipeline.cli import main
from pipeline.tracking import store
from tests.unit.tracking.run_folders import make_spec, write_run


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dead_server() -> str:
    """The address of a server that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_the_default_store_is_a_database_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking.tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "postgresql://host/mlflow", "sqlite:////tmp/other.db"])
def test_the_environment_overrides_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.tracking_uri(tmp_path) == uri


def test_a_relative_database_means_the_same_to_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.chdir(tmp_path)
    assert tracking.tracking_uri(Path("/elsewhere")) == f"sqlite:///{tmp_path}/mlflow.db"


def test_importing_the_package_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys, pipeline.tracking; print({'mlflow', 'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_new_database_gets_its_tables(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new folder' / 'mlflow.db'}"
    assert tracking.initialise(uri)
    assert MlflowClient(uri).get_experiment("0").name == "Default"


def test_telemetry_is_off() -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


@pytest.mark.parametrize("kind", ["dead", "silent", "database"])
def test_an_unreachable_server_costs_seconds_and_one_warning(
    kind: str, dead_server: str, silent_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = dead_server.replace("http://", "postgresql://user:secret@") + "/mlflow"
    uri = {"dead": dead_server, "silent": silent_server, "database": database}[kind]
    folder = write_run(tmp_path, make_spec())
    begun = time.monotonic()
    assert not tracking.initialise(uri)
    for _ in range(20):
        assert tracking.open_run(uri, folder, profile="digits") is None
        assert tracking.close_run(uri, None, folder, "FINISHED") is None
    assert tracking.sync(uri, [folder]).failed == (folder.name,)
    assert time.monotonic() - begun < 10 * store.PROBE_SECONDS  # not one for each of the 41 calls
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert "track --sync" in warning.getMessage()
    assert "\n" not in warning.getMessage()
    assert "secret" not in warning.getMessage()


def test_a_store_that_comes_back_is_used_again_and_warned_of_again(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    uri = f"sqlite:///{place / 'mlflow.db'}"
    folder = write_run(tmp_path, make_spec())
    place.write_text("in the way")
    assert tracking.open_run(uri, folder, profile="digits") is None
    place.unlink()
    place.mkdir()
    shutil.copyfile(empty_store, place / "mlflow.db")
    run_id = tracking.close_run(uri, None, folder, "FINISHED")
    assert run_id is not None
    assert len(caplog.records) == 1
    monkeypatch.setattr(MlflowClient, "get_run", _refuse)
    for _ in range(3):
        assert tracking.close_run(uri, run_id, folder, "FINISHED") is None
    assert len(caplog.records) == 2


def _refuse(self: MlflowClient, run_id: str) -> None:
    raise ConnectionError("gone again")


@pytest.mark.parametrize(
    "message",
    [
        "(sqlite3.OperationalError) database is locked",
        "(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key, tags.run_uuid",
        "(psycopg.errors.UniqueViolation) duplicate key value violates unique constraint",
    ],
)
def test_what_another_process_prevented_is_tried_again(
    uri: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    @store.tolerate_errors
    def prevented_twice(client: MlflowClient) -> str:
        calls.append(client)
        if len(calls) < 3:
            raise MlflowException(message)
        return "done"

    assert prevented_twice(uri) == "done"
    assert len(calls) == 3
    assert not caplog.records


def test_a_driver_that_is_not_installed_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with socket.create_server(("127.0.0.1", 0)) as database:
        uri = f"postgresql://127.0.0.1:{database.getsockname()[1]}/mlflow"
        assert not tracking.initialise(uri)
    [warning] = caplog.records
    assert "psycopg" in warning.getMessage()


@pytest.mark.parametrize(
    "uri", ["http://localhost:abc", "http://[bad", "postgresql://user:secret@localhost:abc/db", "babbler"]
)
def test_an_address_that_leads_nowhere_stops_nothing(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        if uri == "babbler":
            uri = f"http://127.0.0.1:{server.getsockname()[1]}"
            threading.Thread(target=lambda: server.accept()[0].sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), daemon=True).start()
        assert not tracking.initialise(uri)
    [warning] = caplog.records
    assert "secret" not in warning.getMessage()


def test_what_comes_out_of_mlflow_is_its_own(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        """As the client of an object store raises it, deep in a call of MLflow."""

    def fail(*arguments: object, **options: object) -> None:
        raise NoCredentialsError

    @store.tolerate_errors
    def logged(client: MlflowClient) -> None:
        client.get_run("0" * 32)

    monkeypatch.setattr("mlflow.tracking._tracking_service.client.TrackingServiceClient.get_run", fail)
    assert logged(uri) is None


def test_a_mistake_of_ours_is_not_taken_for_one_of_the_server(uri: str) -> None:
    @store.tolerate_errors
    def broken(client: MlflowClient) -> None:
        raise KeyError("oops")

    with pytest.raises(KeyError):
        broken(uri)


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("sqlite:////data/mlflow.db", "file:///data/mlartifacts"),
        ("postgresql://host/mlflow", "s3://bucket/artifacts"),
        ("http://host:5000", None),
    ],
)
def test_every_kind_of_store_has_a_place_for_artifacts(
    uri: str, root: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://bucket/artifacts")
    assert store.artifact_root(uri) == root


def test_a_server_of_this_machine_is_not_asked_through_a_proxy(
    dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, dead_server)
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store.probe(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert os.environ["no_proxy"] == "example.org,localhost,127.0.0.1,::1"
    assert os.environ["NO_PROXY"] == "localhost,127.0.0.1,::1"


def test_a_busy_port_is_refused_before_an_address_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        begun = time.monotonic()
        assert main(["ui", "--port", str(port)]) == 2
        assert time.monotonic() - begun < 5
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"error: --port {port} of 127.0.0.1: is in use; another one: make ui PORT={port + 1}\n"
    assert not (tmp_path / "mlflow.db").exists()
