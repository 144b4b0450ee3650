"""Trained networks in MLflow: logged with their run, registered under their experiment's name."""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.records import WEIGHTS, Metrics
from pipeline.tracking.describe import IDENTITY, Described
from pipeline.tracking.store import survives
from pipeline.utils.files import sha256_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import Model

MODEL_TAG = "model.weights_sha256"


@survives
def log_model(client: MlflowClient, run_id: str, folder: Path) -> str | None:
    """Log the network of a finished run and register it; a URI for `mlflow.pytorch.load_model`.

    The network is registered under the name of its experiment, and the alias ``best-<profile>`` is moved to the
    version of that profile with the lowest test error. It takes prepared pictures, float32 [N, 3, H, W] (scaled to
    [0, 1], the mean picture subtracted), and gives logits [N, classes]. It is stored as an exported graph (`pt2`),
    which needs none of this project's code and unpickles nothing; exporting takes 5 to 15 s. Idempotent.
    """
    run = Described.read(folder)
    weights = sha256_file(folder / WEIGHTS)
    tags = client.get_run(run_id).data.tags
    if tags.get(MODEL_TAG) == weights:
        return _uri(client, run_id)
    logged = _log(client, run_id, run)
    _register(client, run_id, run, tags["profile"], logged)
    client.set_tag(run_id, MODEL_TAG, weights)
    return f"models:/{logged.model_id}"


def _uri(client: MlflowClient, run_id: str) -> str | None:
    outputs = client.get_run(run_id).outputs
    return f"models:/{outputs.model_outputs[-1].model_id}" if outputs and outputs.model_outputs else None


def _log(client: MlflowClient, run_id: str, run: Described) -> LoggedModel:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment = client.get_run(run_id).info.experiment_id
    iterations = run.config["protocol"]["iterations"]
    identity = {IDENTITY: run.config["identity"]}
    logged = client.create_logged_model(
        experiment, run.name, run_id, identity, model_type=run.config["network"]["name"]
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "model"
            entry = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
            _save(run, target, entry)
            client.log_model_artifacts(logged.model_id, str(target))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, iterations)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _save(run: Described, target: Path, entry: Model) -> None:
    """Write the network in MLflow's format, as `mlflow.pytorch.save_model` does."""
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from models.weights import load_model

    size, classes = run.config["data"]["image_size"], len(run.config["data"]["classes"])
    kind = np.dtype("float32")
    images, logits = TensorSpec(kind, (-1, 3, size, size)), TensorSpec(kind, (-1, classes))
    with _logging_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pytorch

        mlflow.pytorch.save_model(
            load_model(run.folder / WEIGHTS).eval(),
            str(target),
            mlflow_model=entry,
            signature=ModelSignature(Schema([images]), Schema([logits])),
            input_example=np.zeros((2, 3, size, size), kind),
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
            serialization_format="pt2",
        )


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Undo that importing `mlflow.pytorch` silences warnings everywhere (`logging.basicConfig(level=ERROR)`)."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    mlflow = logging.getLogger("mlflow")
    mlflow_level = mlflow.level
    mlflow.setLevel(logging.ERROR)  # its hints about input examples are no news
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        mlflow.setLevel(mlflow_level)


def _register(client: MlflowClient, run_id: str, run: Described, profile: str, logged: LoggedModel) -> None:
    from mlflow.exceptions import MlflowException

    name = run.config["experiment"]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    test_error = Metrics.read(run.folder).test_error
    tags = {"profile": profile, IDENTITY: run.config["identity"], "test_error": repr(test_error)}
    # The location, not `models:/<id>`: that MLflow 3.17 resolves against its global tracking URI.
    client.create_model_version(name, logged.artifact_location, run_id, tags, model_id=logged.model_id)
    versions = [found for found in client.search_model_versions(f"name = '{name}'") if _of(found.tags, profile)]
    best = min(versions, key=lambda version: (_test_error(version.tags), int(version.version)))
    client.set_registered_model_alias(name, f"best-{profile}", str(best.version))


def _of(tags: dict[str, str], profile: str) -> bool:
    return tags.get("profile") == profile


def _test_error(tags: dict[str, str]) -> float:
    value = float(tags.get("test_error", "inf"))
    return math.inf if math.isnan(value) else value
