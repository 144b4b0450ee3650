"""Plans for tests, made from configurations of runs without any data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal

from pipeline.runs.execution import Checkpoints, Resources
from pipeline.runs.spec import Protocol, RunSpec
from pipeline.settings.plan import Cost, Label, Plan, PlannedRun, Report, Tracking

RESOURCES = Resources(workers=1, threads=1, gpus="auto", max_parallel=None, max_failures=2)


def make_protocol(
    iterations: int,
    batch_size: int,
    learning_rate: float = 0.1,
    milestones: tuple[int, ...] = (),
    gamma: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    padding: int = 2,
    flip: bool = False,
    batch_norm_group: int | None = None,
) -> Protocol:
    """Return a protocol; batch-norm statistics run over the batch where nothing else is said."""
    return Protocol(
        iterations=iterations,
        batch_size=batch_size,
        learning_rate=learning_rate,
        milestones=milestones,
        gamma=gamma,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        padding=padding,
        flip=flip,
        batch_norm_group=batch_norm_group or batch_size,
    )


def make_plan(
    runs: Sequence[RunSpec | Mapping[str, Any]] = (),
    *,
    profile: str = "digits",
    label: Label | None = None,
    store: str = "runs",
    models: Literal["none", "best", "all"] = "none",
    tracked: bool = False,
    costs: Iterable[int] = repeat(3000),
    parameters: Iterable[int] = repeat(1),
) -> Plan:
    """Return a plan of these runs.

    `costs` are their multiply-adds of training, those of one image are 1000; `parameters` those of their networks.
    """
    contents = [dict(run.to_json()) if isinstance(run, RunSpec) else dict(run) for run in runs]
    planned = [
        PlannedRun(content, Cost(count, 1000, cost))
        for content, cost, count in zip(contents, costs, parameters, strict=False)
    ]
    return Plan(
        profile=profile,
        label=label or Label(standin=True, schedule="short", statement="Synthetic data."),
        report=Report(equivalence_margin=0.25),
        resources=RESOURCES,
        checkpoints=Checkpoints(seconds=60.0, keep=2),
        store=store,
        tracking=Tracking(enabled=tracked, models=models, system_metrics=False),
        remote=None,
        runs={run.name: run for run in planned},
    )
