"""The files for clusters: what can be said of them without a cluster."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.launch.doctor import locked

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
SCRIPT = CLUSTER / "train.slurm"
SCHEMA = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())


@pytest.fixture
def rayjob() -> Any:
    return yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())


def validate(content: Any) -> None:
    import jsonschema

    jsonschema.validate(content, SCHEMA, cls=jsonschema.Draft202012Validator)


def pods(rayjob: Any) -> list[Any]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_rayjob_has_only_fields_that_kuberay_knows(rayjob: Any) -> None:
    validate(rayjob)


@pytest.mark.parametrize(
    "damage",
    [
        lambda job: job["spec"].update(entryPoint="dvc repro"),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("minReplicas"),
        lambda job: pods(job)[1]["containers"][0]["resources"]["limits"].update(memory="32 GB"),
        lambda job: job["spec"].pop("entrypoint"),
    ],
)
def test_the_schema_refuses_what_kuberay_would_refuse(rayjob: Any, damage: Any) -> None:
    import jsonschema

    damaged = copy.deepcopy(rayjob)
    damage(damaged)
    with pytest.raises(jsonschema.ValidationError):
        validate(damaged)


def test_every_pod_mounts_the_shared_volume_and_only_volumes_that_it_has(rayjob: Any) -> None:
    for pod in pods(rayjob):
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(mounts) <= volumes
            assert mounts["shared"] == "/shared"
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_rayjob_keeps_authentication_on_and_the_dashboard_inside(rayjob: Any) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "dashboard-host" not in cluster["headGroupSpec"]["rayStartParams"]


def test_nothing_on_a_cluster_reports_its_use(rayjob: Any) -> None:
    off = {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}
    assert all(off in container["env"] for pod in pods(rayjob) for container in pod["containers"])
    assert re.search(r"^export .*\bRAY_USAGE_STATS_ENABLED=0\b", SCRIPT.read_text(), re.MULTILINE)
    pages = {page: page.read_text() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *CLUSTER.glob("*.md"))}
    starts = [line for text in pages.values() for line in text.splitlines() if line.strip().startswith("ray start")]
    assert "ray start" in pages[CLUSTER / "README.md"]
    assert starts and all("--disable-usage-stats" in line for line in starts)


def test_the_rayjob_names_the_ray_of_the_lock_file(rayjob: Any) -> None:
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == locked(ROOT / "requirements.lock")["ray"]


def test_the_entrypoint_is_one_valid_shell_command(rayjob: Any) -> None:
    entrypoint = rayjob["spec"]["entrypoint"]
    assert "\n" not in entrypoint
    subprocess.run(["bash", "-n", "-c", entrypoint], check=True)
    assert "RAY_ADDRESS=auto" in entrypoint


def test_shellcheck_has_nothing_to_say_about_the_slurm_script() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; bash -n finds the script well formed")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_slurm_reads_its_options_before_the_first_command() -> None:
    lines = SCRIPT.read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert options and max(options) < first_command
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number]) for number in options)


@pytest.fixture
def slurm(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A checkout on a pretended Slurm: its programs write down how they were called."""
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, body in {
        "scontrol": "printf 'node7\\nnode8\\n'",
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "ray": 'echo "ray $RAY_AUTH_MODE $*" >>"$SLURM_SUBMIT_DIR/calls"',
        "python": 'echo "python $*" >>"$SLURM_SUBMIT_DIR/calls"',
    }.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tools / name).chmod(0o755)
    given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2"}
    return tmp_path, {**os.environ, **given, "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "1"}


def test_the_slurm_script_starts_ray_on_all_nodes_with_a_token_and_repro_on_the_first(
    slurm: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = slurm
    subprocess.run(["bash", str(SCRIPT), "cifar10"], check=True, env=environment)
    token, compose, run = (folder / "calls").read_text().splitlines()
    assert token == "ray token get-auth-token --generate"
    assert compose == "python -m pipeline compose cifar10"
    assert run == (
        "ray token symmetric-run --address node7:6379 --min-nodes 2 --num-cpus=16 --num-gpus=1"
        " --include-dashboard=false -- env RAY_ADDRESS=node7:6379 dvc repro"
    )


def test_the_slurm_script_says_so_when_the_environment_is_missing(slurm: tuple[Path, dict[str, str]]) -> None:
    folder, environment = slurm
    (folder / ".venv" / "bin" / "ray").unlink()
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "make repro" in done.stderr


def test_ray_knows_the_options_that_the_files_use() -> None:
    """`ray symmetric-run` passes on what `ray start` takes; both are read from the installed Ray."""
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import symmetric_run

    known = {option for command in (start, symmetric_run) for parameter in command.params for option in parameter.opts}
    text = SCRIPT.read_text()
    used = set(re.findall(r"--[a-z-]+", text[text.index("ray symmetric-run \\") : text.index("    -- env")]))
    assert used and used <= known
    for line in (CLUSTER / "README.md").read_text().splitlines():
        if line.strip().startswith("ray start"):
            assert set(re.findall(r"--[a-z-]+", line)) <= known, line
