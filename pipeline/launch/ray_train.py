"""The training core under Ray Train; see `pipeline.launch.cluster` for the cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.launch.cluster import WATCHER
from pipeline.launch.placement import Share
from pipeline.runs.execution import STOP_FILE, Execution, Resources
from pipeline.runs.records import LOG
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    import torch

STOP_SECONDS = 0.2  # between two looks for a request to stop
STORAGE = ".ray"  # Ray Train's own notes on its runs, in the store


class RaySession:
    """The session of a worker of a Ray Train run.

    Args:
        reports: whether evaluations are reported to Ray, as those of trials are, which Ray Tune compares.
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
        """Report an evaluation of a trial to Ray Tune; do nothing for other runs, whose folder has it all.

        The last evaluation of a trial is reported elsewhere, once the run has written all of its files.
        """
        import ray.train

        if self._reports and not last:
            ray.train.report(dict(metrics))

    def about_to_be_lost(self) -> bool:
        """Return whether a preemption notice for a node of this run has come since the last call."""
        import ray.train

        info = ray.train.get_preemption_info() if self._watched else None
        if info is None or info.preempted_node_ids == self._announced:
            return False
        self._announced = info.preempted_node_ids
        logging.getLogger(__name__).warning("nodes %s will be taken away: checkpoint", ", ".join(self._announced))
        return True


def _train_loop(job: dict[str, Any]) -> str:
    """Train on one worker; return finished, paused, or failed and why.

    Ray would start a failed worker again. That helps when a machine is lost, not when the settings are wrong or the
    loss is not finite: those end here. All workers have the same loss, but a mistake, such as a damaged file, may be
    seen by one worker while the others wait for it: that one raises, and `_control` does not retry.
    """
    from pipeline.launch.worker_folder import worker_folder
    from pipeline.training.finish import DivergedError
    from pipeline.training.loop import train

    spec: RunSpec = job["spec"]
    session = RaySession(reports=job["is_trial"])
    with worker_folder(job["execution"], first_here=session.local_rank == 0) as execution:
        if session.rank == 0:
            handler = logging.FileHandler(execution.folder / LOG)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logging.getLogger("pipeline").addHandler(handler)
        try:
            return train(spec, execution, session, should_stop=_asked_to_stop(execution.folder / STOP_FILE))
        except (UserError, DivergedError) as error:
            if isinstance(error, UserError) and session.world_size > 1:
                raise
            return f"failed: {error}"


def _asked_to_stop(request: Path) -> Callable[[], bool]:
    """Return a function that tells whether the driver asks the run to stop; it looks at most five times a second."""
    looked = 0.0

    def asked() -> bool:
        nonlocal looked
        now = time.monotonic()
        if now - looked < STOP_SECONDS:
            return False
        looked = now
        return request.exists()

    return asked


def _control(settings: Mapping[str, Any]) -> Any:
    """Run the controller of one run in this thread until the run has ended; return its result."""
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.failure_handling import FailureDecision

    from pipeline.launch.worker_start import PunctualWorkerGroup

    policy = settings["failure_policy"]
    usual = policy.make_decision

    def make_decision(training_failed_error: BaseException) -> Any:
        return FailureDecision.RAISE if _mistake(training_failed_error) else usual(training_failed_error)

    policy.make_decision = make_decision
    controller = TrainController(**settings)
    controller.worker_group_cls = PunctualWorkerGroup
    asyncio.run(controller.run())
    return controller.get_result()


def _mistake(error: BaseException) -> UserError | None:
    """Return the mistake that a worker failed of, or its start, if trying again cannot help."""
    failures = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]  # Ray Train wraps what a worker raises
    return next((cause for cause in causes if isinstance(cause, UserError)), None)


def train_under_ray(
    spec: RunSpec, execution: Execution, resources: Resources, worker_resources: Share, is_trial: bool = False
) -> str:
    """Train one run; needs a connection to Ray, and may be called from several threads at once.

    This thread runs the controller: a process for each controller would cost 5 CPU-seconds a run.

    Args:
        is_trial: whether Ray Tune calls this in a trial, which gets the evaluations and may stop the run.

    Returns:
        finished, paused, or failed and why.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

    from pipeline.launch.process_group import torch_config

    storage = execution.folder.parent / STORAGE
    trainer = _trainer_class()(
        _train_loop,
        train_loop_config={
            "spec": spec,
            "execution": replace(execution, gpus=worker_resources.gpus),
            "is_trial": is_trial,
        },
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=worker_resources.gpus > 0,
            resources_per_worker=worker_resources.bundle,
        ),
        torch_config=torch_config(resources.workers, "nccl" if worker_resources.gpus >= 1 else "gloo"),
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
        return f"failed: {_mistake(error) or _root_cause(error)}"
    finally:
        shutil.rmtree(storage / spec.folder_name, ignore_errors=True)


def _trainer_class() -> Any:
    """Return a TorchTrainer with fewer processes: each costs a run several CPU-seconds.

    The controller runs in the calling thread. Of two helpers, one serves Ray Data; the other frees a dead run's
    resources, which on a cluster of our own ends with the command. All three are left out through private methods of
    Ray: if it renames them, they are there again.
    """
    from ray.train.torch import TorchTrainer

    idle = (
        {"DatasetsCallback"} if os.environ.get("RAY_ADDRESS") else {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    )

    class LeanTorchTrainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [callback for callback in super()._create_default_callbacks() if type(callback).__name__ not in idle]

        def _initialize_and_run_controller(self, **settings: Any) -> Any:
            return _control(settings)

    return LeanTorchTrainer


def _to_tune() -> list[Any]:
    from ray.tune.integration.ray_train import TuneReportCallback

    return [TuneReportCallback()]


def _root_cause(error: BaseException) -> str:
    """Return the last line of a message, which is that of the worker itself."""
    text = str(error).strip().splitlines()
    return text[-1].strip() if text else type(error).__name__
