"""The runs and the report of a profile as an RO-Crate: files with checksums, and what made them, for archives.

It follows the profile Process Run Crate (https://w3id.org/ro/wfrun/process/0.5): an action for each run, with its
instrument (the code at a commit), its objects (configuration and data set) and its results (the files of the run).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runs.finished import read_finished
from pipeline.runs.records import CONFIG, DETERMINISTIC, MACHINE
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"
REPORT = ("report.md", "report.html", "summary.json", "metrics.json", "claims.csv", "runs.csv", "tables/*", "figures/*")


def write_crate(profile: str, statement: str, runs: Sequence[Path], report: Path, out: Path, root: Path) -> int:
    """Write finished runs and the report of a profile to a new folder `out`.

    Args:
        profile: name of the profile.
        statement: what the profile says of its results.
        runs: folders of finished runs.
        report: folder of the report.
        out: folder of the crate, which must not exist yet.
        root: the project folder, for its licence.

    Returns:
        The number of files in the crate.

    Raises:
        UserError: if there are no runs, or `out` exists.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    if not runs:
        raise UserError(f"profile {profile}: no run is finished or published; there is nothing to put into a crate")
    if out.exists():
        raise UserError(f"{out}: exists; name a folder that does not")
    crate = ROCrate()
    crate.name, crate.description = f"Residual Attention Network, reproduced: profile {profile}", statement
    crate.license = _add_file(crate, root / "LICENSE", "LICENSE")
    crate.root_dataset["conformsTo"] = crate.add(
        ContextEntity(crate, PROCESS_RUN, {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"})
    )
    actions = [_add_run(crate, folder) for folder in runs]
    crate.root_dataset["mentions"] = actions
    crate.datePublished = datetime.fromisoformat(max(action["endTime"] for action in actions))
    for pattern in REPORT:
        for path in sorted(report.glob(pattern)):
            _add_file(crate, path, f"report/{path.relative_to(report).as_posix()}")
    crate.write(out)
    return len(ROCrate(out).get_by_type("File"))


def _add_run(crate: ROCrate, folder: Path) -> Any:
    """Add the files of a run and the action that made them; return the action."""
    from rocrate.model.contextentity import ContextEntity

    run = read_finished(folder)
    provenance, data = run.provenance, run.spec.data
    if provenance is None or not provenance.segments:
        raise UserError(f"{folder}: has no provenance, without which it cannot be described")
    names = [name for name in (*DETERMINISTIC, *MACHINE) if (folder / name).is_file()]
    files = {name: _add_file(crate, folder / name, f"runs/{folder.name}/{name}") for name in names}
    first, last = provenance.segments[0], provenance.segments[-1]
    code = ContextEntity(
        crate,
        f"#code-{last.commit or 'unknown'}{'-changed' * last.dirty}",
        {
            "@type": "SoftwareApplication",
            "name": "residual-attention" + " with uncommitted changes" * last.dirty,
            "version": last.commit or "unknown",
            "softwareRequirements": ", ".join(f"{name} {version}" for name, version in last.versions.items()),
        },
    )
    dataset = ContextEntity(
        crate,
        f"#data-{data.checksum}",
        {"@type": "CreativeWork", "name": data.dataset, "identifier": data.checksum},
    )
    ended = datetime.fromisoformat(last.started) + timedelta(seconds=last.seconds)
    return crate.add(
        ContextEntity(
            crate,
            f"#run-{folder.name}",
            {
                "@type": "CreateAction",
                "name": f"training of {folder.name}",
                "description": f"{last.command} (on {last.device})",
                "actionStatus": "http://schema.org/CompletedActionStatus",
                "startTime": first.started,
                "endTime": ended.isoformat(),
                "instrument": crate.add(code),
                "object": [files[CONFIG], crate.add(dataset)],
                "result": [file for name, file in files.items() if name != CONFIG],
            },
        )
    )


def _add_file(crate: ROCrate, path: Path, name: str) -> Any:
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return crate.add_file(path, name, properties={"name": name, "sha256": checksum})
