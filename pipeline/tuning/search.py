"""The driver's part of a search: what it is, which trial comes next, and how a trial begins and ends."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.data.manifest import read_manifest
from pipeline.launch.driver import Driver
from pipeline.runs.execution import STOP_FILE, Execution
from pipeline.runs.records import CHECKPOINTS
from pipeline.runs.spec import DataSpec, RunSpec, evaluation_iterations
from pipeline.settings.config import parse
from pipeline.settings.planning import build_plan, run_spec
from pipeline.settings.tree import Config
from pipeline.tuning.space import Space, Values, check_edges, merged, override, own_values
from pipeline.tuning.split import hold_out, split_folder
from pipeline.tuning.study import Suggestions
from pipeline.tuning.tracking import trial_tags
from pipeline.tuning.trials import SEARCH, Progress, SearchConfig, State, Trial, read_progress, trials
from pipeline.utils.errors import UserError
from pipeline.utils.git import origin

EXPERIMENT = "attention56"  # searched where the user names none
FINISHED, PAUSED, FAILED = "finished", "paused", "failed: "  # outcomes of a run
IDENTITY_DIGITS = 8


@dataclass(frozen=True)
class Job:
    """A trial that may begin."""

    number: int
    spec: RunSpec
    execution: Execution


@dataclass
class Search:
    """A search of one space for one experiment of the active profile.

    Attributes:
        tree: content of ``params.yaml``.
        config: what is searched; see `prepare`.
        driver: with the folder of the search as its store.
    """

    tree: Mapping[str, Any]
    config: SearchConfig
    space: Space
    base: RunSpec
    driver: Driver
    going: dict[int, Job] = field(default_factory=dict)
    _suggestions: Suggestions | None = None

    @property
    def folder(self) -> Path:
        """Where the trials are."""
        return self.driver.store

    def jobs(self) -> Iterator[Job]:
        """The trials that are missing: those that were interrupted or failed, then new ones, each begun when taken."""
        earlier = trials(self.folder)
        self._suggestions = Suggestions(self.space, self.config.seed, earlier, self.config.baseline)
        for progress in earlier:
            if not progress.trial.ended:
                yield self._begin(progress.trial.number, progress.trial.values)
        for number in range(1 + max((p.trial.number for p in earlier), default=-1), self.config.wanted):
            values = self._suggestions.ask(number)
            if values is None:
                return
            yield self._begin(number, values)

    def missing(self) -> int:
        """How many trials have not ended yet."""
        return self.config.wanted - sum(progress.trial.ended for progress in trials(self.folder))

    def _begin(self, number: int, values: Values) -> Job:
        spec = self.spec(number, values)
        Trial(number, values).write(self.folder / spec.folder_name)
        split = split_folder(self.driver.data, spec.data.dataset).absolute()
        self.going[number] = Job(number, spec, replace(self.driver.begin(spec), prepared=split))
        return self.going[number]

    def spec(self, number: int, values: Values) -> RunSpec:
        """The run of a trial."""
        over = override(values, self.config.experiment, self.config.iterations)
        settings = parse(merged(self.tree, over), f"trial {number}")
        return replace(
            _run(settings, self.config.experiment, self.driver.data),
            experiment=f"{self.config.experiment}-trial{number:03d}",
            data=self.base.data,
        )

    def end(self, job: Job, outcome: str, iteration: int) -> Progress:
        """Record how a trial has ended, in its folder, in MLflow and for the suggestions to come.

        Args:
            outcome: finished, paused (because it was asked to stop), or failed and why.
            iteration: of the last evaluation that was compared with others.
        """
        folder, reason = job.execution.folder, None
        state: State = "pruned"
        if outcome == FINISHED:
            state, iteration = "finished", self.config.iterations
        elif outcome != PAUSED:
            state, reason = "failed", outcome.removeprefix(FAILED)
        trial = Trial(job.number, Trial.read(folder).values, state, iteration, reason)
        self.driver.end(job.execution, reason, tags=trial_tags(trial))
        trial.write(folder)  # from here on the trial is not touched again, so all the rest has come before
        if state == "pruned":
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        (folder / STOP_FILE).unlink(missing_ok=True)
        del self.going[job.number]
        progress = read_progress(folder)
        assert self._suggestions is not None, "only a trial that has begun ends"
        self._suggestions.tell(progress)
        return progress

    def interrupted(self) -> None:
        """Record that the trials that were going are not; they continue from their checkpoints."""
        for job in self.going.values():
            self.driver.interrupt(job.execution)
        self.going.clear()


def prepare(
    settings: Config,
    tree: Mapping[str, Any],
    space: tuple[str, Space],
    experiment: str,
    wanted: int | None,
    root: Path,
    max_parallel: int | None = None,
) -> Search:
    """A search, new or begun before, its validation split ready.

    Raises:
        UserError: if the experiment, its data or the edges of the space do not fit.
    """
    if experiment not in settings.experiments:
        known = ", ".join(settings.experiments)
        raise UserError(f"--experiment {experiment!r}: not in profile {settings.profile!r}, which has {known}")
    if settings.experiments[experiment].noise:
        raise UserError(f"--experiment {experiment!r}: its labels are noisy; search on clean ones")
    name, content = space
    check_edges(content, tree, experiment, settings.protocol.iterations, f"space {name}")
    plan, data = build_plan(settings, None), root / "data"
    own = _run(settings, experiment, data)
    hold_out(own.data.dataset, data)
    base = replace(own, data=_data(own, data))
    if base.protocol.batch_size > base.data.train_images:
        raise UserError(
            f"protocol.batch_size = {base.protocol.batch_size}: must be at most {base.data.train_images}, the training"
            f" images of {base.data.dataset} without the validation images"
        )
    config = SearchConfig(
        name=f"{settings.profile}-{name}" + ("" if experiment == EXPERIMENT else f"-{experiment}"),
        identity=_identity(base, content),
        profile=settings.profile,
        statement=settings.label.statement,
        experiment=experiment,
        dataset=base.data.dataset,
        seed=base.seed,
        wanted=wanted or content.trials,
        space=content.model_dump(mode="json"),
        baseline=own_values(content, settings, experiment),
        iterations=base.protocol.iterations,
        train_images=base.data.train_images,
        validation_images=base.data.test_images,
        commit=origin(root).commit,
        rungs=content.stopping.rungs(evaluation_iterations(base)),
    )
    driver = Driver(plan, root, max_parallel=max_parallel, search=config.folder_name)
    if wanted is None and (driver.store / SEARCH).exists():
        config = replace(config, wanted=SearchConfig.read(driver.store).wanted)
    return Search(tree, config, content, base, driver)


def _run(settings: Config, experiment: str, data: Path) -> RunSpec:
    """The run of one experiment with the profile's first seed."""
    return run_spec(settings, experiment, settings.seeds[0], data)


def _data(spec: RunSpec, data: Path) -> DataSpec:
    """The same data set with validation images in place of the test images."""
    manifest = read_manifest(split_folder(data, spec.data.dataset))
    return replace(
        spec.data,
        checksum=manifest["checksum"],
        train_images=manifest["train_images"],
        test_images=manifest["test_images"],
    )


def _identity(base: RunSpec, space: Space) -> str:
    """Of a search: its space (how many trials it has does not matter) and the run that it varies."""
    content = {"space": space.model_dump(mode="json", exclude={"trials"}), "base": base.identity}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:IDENTITY_DIGITS]
