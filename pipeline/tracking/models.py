"""Trained networks in MLflow: logged with their run, registered as versions of one model a profile."""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.records import WEIGHTS, Metrics
from pipeline.tracking.describe import IDENTITY, Described
from pipeline.tracking.runs import find_run
from pipeline.tracking.store import tolerate_errors
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import sha256_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import Model

logger = logging.getLogger("pipeline.tracking")

MODEL_TAG = "model.weights_sha256"
BEST, MAY_BE_BEST = "best", "may_be_best"
YES = "yes"  # or the reason why not


def log_models(uri: str, folders: Sequence[Path], profile: str, wanted: str, root: Path) -> int:
    """Log networks of a profile's finished runs as models, those that have weights, each once.

    Args:
        wanted: all, best (the one with the lowest error of those that may be the best, else of all), or none.
        root: the project folder, whose ``conf/`` says how long a run of the profile is.

    Returns:
        how many of the wanted ones MLflow has.
    """
    found = [folder for folder in folders if wanted != "none" and (folder / WEIGHTS).exists()]
    iterations = full_length(profile, root) if found else None
    if wanted == "best" and found:
        found = [min(found, key=lambda folder: _rank(Described.read(folder), iterations))]
    logged = 0
    for folder in found:
        run_id = find_run(uri, folder)
        try:
            logged += run_id is not None and log_model(uri, run_id, folder, iterations) is not None
        except Exception as error:  # PyTorch's exporter fails in many ways; the run is finished whatever it does
            logger.warning("%s: its network could not be logged as a model: %s", folder.name, one_line(error))
    return logged


def full_length(profile: str, root: Path) -> int | None:
    """Iterations of a run of a profile as ``conf/`` has it; None where it has no such profile."""
    from pipeline.settings.config import PARAMS, compose  # pydantic: workers, which import this package, do without

    try:
        with tempfile.TemporaryDirectory() as scratch:
            return compose(profile, [], Path(scratch) / PARAMS, root).protocol.iterations
    except UserError:
        return None


def _may_be_best(run: Described, iterations: int | None) -> str:
    """Whether a run may be the best of its profile: yes, or why not. Without `iterations` any length will do."""
    if run.config["data"]["noise"]:
        return "its labels are noisy"
    if run.provenance is None or any(segment.dirty for segment in run.provenance.segments):
        return "its code was edited"
    if iterations is not None and run.config["protocol"]["iterations"] != iterations:
        return f"it has not the {iterations} iterations of the profile"
    return YES


def _rank(run: Described, iterations: int | None) -> tuple[bool, float, str]:
    return _may_be_best(run, iterations) != YES, Metrics.read(run.folder).test_error, run.folder.name


@tolerate_errors
def log_model(client: MlflowClient, run_id: str, folder: Path, iterations: int | None = None) -> str | None:
    """Log the network of a finished run and register it; return a URI for `mlflow.pytorch.load_model`.

    The network becomes a version of the model ``residual-attention-<profile>``; the alias ``best`` is given to the
    version with the lowest test error of those without noise, from unedited code, that have the profile's full length
    (`iterations`; None: any). It takes prepared images, float32 [N, 3, H, W] (scaled to [0, 1], the mean image
    subtracted), and gives logits [N, classes]. It is stored as an exported graph (`pt2`), which needs none of this
    project's code and unpickles nothing; exporting takes 5 to 15 s. Idempotent.
    """
    run = Described.read(folder)
    weights = sha256_file(folder / WEIGHTS)
    found = _logged_before(client, run_id, weights)
    if found is not None:
        return found
    logged = _log(client, run_id, run)
    _register(client, run_id, run, logged, _may_be_best(run, iterations))
    client.set_tag(run_id, MODEL_TAG, weights)
    return f"models:/{logged.model_id}"


def _logged_before(client: MlflowClient, run_id: str, weights: str) -> str | None:
    """The URI of a run's logged model, if it has these weights and its files are there."""
    run = client.get_run(run_id)
    if run.data.tags.get(MODEL_TAG) != weights or not run.outputs or not run.outputs.model_outputs:
        return None
    model_id = run.outputs.model_outputs[-1].model_id
    return f"models:/{model_id}" if client.list_logged_model_artifacts(model_id) else None


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
    mlflow.setLevel(logging.ERROR)  # its hints about input examples are not worth a line
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        mlflow.setLevel(mlflow_level)


def _register(client: MlflowClient, run_id: str, run: Described, logged: LoggedModel, may_be_best: str) -> None:
    from mlflow.exceptions import MlflowException

    assert run.provenance is not None
    profile = run.provenance.profile
    name = model_name(profile)
    try:
        client.create_registered_model(name, description=f"The networks of profile `{profile}`, a version a run.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    test_error = Metrics.read(run.folder).test_error
    tags = {
        "run": run.name,
        "network": run.config["network"]["name"],
        IDENTITY: run.config["identity"],
        "test_error": repr(test_error),
        MAY_BE_BEST: may_be_best,
    }
    # The location, not `models:/<id>`: that MLflow 3.17 resolves against its global tracking URI.
    client.create_model_version(name, logged.artifact_location, run_id, tags, model_id=logged.model_id)
    versions = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.tags.get(MAY_BE_BEST) == YES and not math.isnan(float(version.tags["test_error"]))
    ]
    if versions:
        best = min(versions, key=lambda version: (float(version.tags["test_error"]), -int(version.version)))
        client.set_registered_model_alias(name, BEST, str(best.version))


def model_name(profile: str) -> str:
    """The name of the registered model of a profile."""
    return f"residual-attention-{profile}"
