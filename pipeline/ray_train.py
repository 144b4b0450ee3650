"""The training core under Ray Train: one of the two modules that import ray."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.driver import Resources
from pipeline.errors import UserError, one_line
from pipeline.files import write_atomic
from pipeline.object_store import ObjectStore
from pipeline.training.execution import STOP, Execution
from pipeline.training.records import LOG
from pipeline.training.spec import RunSpec

if TYPE_CHECKING:
    import torch

GPU_SHARE = 0.25  # of a GPU, for a run whose profile leaves it to us
CONNECT_SECONDS = 10.0  # that the head of a cluster has to take a connection
STOP_SECONDS = 0.2  # between two looks for a request to stop
STORAGE = ".ray"  # Ray Train's own notes on its runs, in the store

# Whether Ray Train tells a run that a machine of the cluster is about to be taken away: never on one of our own.
WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# Ray's settings, for the driver and for every process that it starts. A run needs none of the watchers, and its
# controller shall notice its end at once: with the defaults each run waits 5 s for it.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    WATCHER: "0",
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "31536000",  # runs wait for their turn
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


class RaySession:
    """A worker of a Ray Train run.

    Args:
        reports: whether evaluations go to Ray: those of a search's trials do, and Ray Tune compares them.
    """

    def __init__(self, *, reports: bool) -> None:
        import ray.train
        import ray.train.torch

        self._reports = reports
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.local_rank: int = context.get_local_rank()  # among the workers on this node
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self._watched = os.environ.get(WATCHER) == "1"
        self._announced: list[str] = []

    def report(self, metrics: Mapping[str, float], *, last: bool) -> None:
        """For a run of its own, nothing: its folder has it all, and Ray keeps no report without a checkpoint.

        The last evaluation of a trial is not reported from here: it counts once the run has written all of its files.
        """
        import ray.train

        if self._reports and not last:
            ray.train.report(dict(metrics))

    def about_to_be_lost(self) -> bool:
        """Whether Ray has announced that a node of this run will be taken away, e.g. a spot instance."""
        import ray.train

        info = ray.train.get_preemption_info() if self._watched else None
        if info is None or info.preempted_node_ids == self._announced:
            return False
        self._announced = info.preempted_node_ids
        logging.getLogger(__name__).warning("nodes %s will be taken away: checkpoint", ", ".join(self._announced))
        return True


def _train_loop(job: dict[str, Any]) -> str:
    """What every worker executes; returns finished, paused, or failed and why.

    Ray would start a failed worker again. That helps against a lost machine, not against a mistake in the settings
    or a loss that is no number: those end here.
    """
    from pipeline.training.loop import DivergedError, train
    from pipeline.workplace import workplace

    spec: RunSpec = job["spec"]
    session = RaySession(reports=job["is_trial"])
    with workplace(job["execution"], first_here=session.local_rank == 0) as execution:
        if session.rank == 0:
            handler = logging.FileHandler(execution.folder / LOG)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logging.getLogger("pipeline").addHandler(handler)
        try:
            return train(spec, execution, session, should_stop=_asked_to_stop(execution.folder / STOP))
        except (UserError, DivergedError) as error:
            return f"failed: {error}"


def _asked_to_stop(request: Path) -> Callable[[], bool]:
    """Whether the driver asks the run to stop; looks at most five times a second."""
    looked = 0.0

    def asked() -> bool:
        nonlocal looked
        now = time.monotonic()
        if now - looked < STOP_SECONDS:
            return False
        looked = now
        return request.exists()

    return asked


@dataclass(frozen=True)
class Share:
    """What one worker of a run is given."""

    threads: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """As Ray's resources."""
        return {"CPU": self.threads, **({"GPU": self.gpus} if self.gpus else {})}

    def describe(self, workers: int) -> str:
        """E.g. ``1 worker with 1 thread``."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{workers} worker{'s'[: workers > 1]} with {self.threads} thread{'s'[: self.threads > 1]}{gpus}"


@contextmanager
def connected(root: Path) -> Iterator[None]:
    """A Ray session: the cluster of RAY_ADDRESS, or one of our own on this machine."""
    address = os.environ.get("RAY_ADDRESS") or None
    for name, value in {**ENVIRONMENT, WATCHER: "1" if address else "0"}.items():
        os.environ.setdefault(name, value)
    import ray

    runtime_env: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in ENVIRONMENT}}
    if address:
        _check_answers(address)
        runtime_env["working_dir"] = str(root)
        runtime_env["excludes"] = ["/data/", "/runs/", "/results/", "/published/", "/reports/", "/.dvc/", "mlflow.db*"]
    else:
        search = [str(root), os.environ.get("PYTHONPATH", "")]
        runtime_env["env_vars"]["PYTHONPATH"] = os.pathsep.join(filter(None, search))
    try:
        _start(address, runtime_env)
    except ConnectionError as error:
        raise _no_cluster(address, error) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse an address of a machine where nobody listens: Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "://" in address:
        return  # `auto`, or a scheme of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str | None, error: OSError) -> UserError:
    return UserError(f"RAY_ADDRESS = {address!r}: no Ray cluster answers there ({one_line(error)})")


def _start(address: str | None, runtime_env: dict[str, Any]) -> None:
    """`ray.init`, once more where a busy machine did not start Ray's processes within the 30 s that Ray allows."""
    import ray

    for attempt in (1, 2, 3):
        try:
            ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=runtime_env,
            )
            return
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
            ray.shutdown()


def share(resources: Resources) -> Share:
    """What each worker gets on this cluster; needs a session.

    Raises:
        UserError: if the cluster can never satisfy it.
    """
    import ray

    has = ray.cluster_resources()
    gpus = resources.gpus
    if gpus == "auto":
        gpus = min(GPU_SHARE, has.get("GPU", 0.0)) if resources.workers == 1 else min(1.0, has.get("GPU", 0.0))
    wanted = Share(resources.threads, float(gpus))
    for name, amount in wanted.bundle.items():
        if amount * resources.workers > has.get(name, 0.0):
            raise UserError(
                f"resources: {resources.workers} workers of {amount:g} {name} each need"
                f" {amount * resources.workers:g} {name}, the cluster has {has.get(name, 0.0):g} in all"
            )
    return wanted


def parallel(resources: Resources, each: Share) -> int:
    """How many runs the cluster can train at once."""
    import ray

    has = ray.cluster_resources()
    fit = min(int(has.get(name, 0.0) / (amount * resources.workers) + 1e-9) for name, amount in each.bundle.items())
    return max(1, min(fit, resources.max_parallel or fit))


def check_shared(store: Path, url: str | None = None) -> None:
    """Refuse a store that other nodes of the cluster do not see: a folder, or what is behind a URL."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return
    name, question = f".shared-{ray.get_runtime_context().get_job_id()}", "Is this store seen from every node?\n"
    place = store if url is None else ObjectStore(url)
    if isinstance(place, Path):
        write_atomic(place / name, question)
    else:
        place.write(name, question.encode())
    look = ray.remote(num_cpus=0)(_sees)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    try:
        sights = ray.get([look.options(scheduling_strategy=node).remote(place, name) for node in there])
    finally:
        (place / name).unlink() if isinstance(place, Path) else place.delete(name)
    blind = [node["NodeManagerAddress"] for node, seen in zip(nodes, sights, strict=True) if not seen]
    if blind:
        raise UserError(
            f"store = {url or str(store)!r}: not seen from {', '.join(blind)}; with several nodes it must be a shared"
            " folder or the URL of an object store"
        )


def _sees(store: Path | ObjectStore, name: str) -> bool:
    """Whether this node sees a file of a store."""
    try:
        return (store / name).exists() if isinstance(store, Path) else store.exists(name)
    except OSError:
        return False


def train_under_ray(
    spec: RunSpec, execution: Execution, resources: Resources, each: Share, *, is_trial: bool = False
) -> str:
    """Train one run; needs a session, and may be called from several threads at once.

    Args:
        is_trial: called within a trial of Ray Tune, which then gets the evaluations and may have the run stopped.

    Returns:
        finished, paused, or failed and why.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig

    storage = execution.folder.parent / STORAGE
    trainer = _trainer_class()(
        _train_loop,
        train_loop_config={"spec": spec, "execution": execution, "is_trial": is_trial},
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=each.gpus > 0, resources_per_worker=each.bundle
        ),
        torch_config=TorchConfig(backend="nccl" if each.gpus >= 1 else "gloo"),
        run_config=RunConfig(
            name=spec.folder_name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=resources.max_failures, controller_failure_limit=3),
            callbacks=_to_tune() if is_trial else None,
        ),
    )
    try:
        return str(trainer.fit().return_value)
    except TrainingFailedError as error:
        return f"failed: {_root_cause(error)}"
    finally:
        shutil.rmtree(storage / spec.folder_name, ignore_errors=True)


def _trainer_class() -> Any:
    """TorchTrainer without two helpers of each run, a process and several CPU-seconds each, that do nothing here.

    One serves Ray Data. The other frees a dead run's resources, which on a cluster of our own dies with the driver.
    They are left out through a private method of Ray; without it they would just be there again.
    """
    from ray.train.torch import TorchTrainer

    idle = (
        {"DatasetsCallback"} if os.environ.get("RAY_ADDRESS") else {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    )

    class LeanTorchTrainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [callback for callback in super()._create_default_callbacks() if type(callback).__name__ not in idle]

    return LeanTorchTrainer


def _to_tune() -> list[Any]:
    from ray.tune.integration.ray_train import TuneReportCallback

    return [TuneReportCallback()]


def _root_cause(error: BaseException) -> str:
    """The worker's own complaint, in one line."""
    text = str(error).strip().splitlines()
    return text[-1].strip() if text else type(error).__name__


def quiet() -> None:
    """Keep Ray Train's own messages off the terminal: launch says what there is to say."""
    for name in ("ray", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    assert "ray" in sys.modules
