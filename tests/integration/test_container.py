"""The steps of the Dockerfile, run in an empty folder without Docker, and the environment that they make."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.integration.conftest import ROOT, Clone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
AS_ROOT = ("apt-get", "useradd")  # steps that need a container


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"^#.*\n|\\\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line]


@pytest.fixture(scope="module")
def container(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """What the image holds, as far as no root is needed."""
    built = Clone(tmp_path_factory.mktemp("container") / "project")
    built.root.mkdir()
    for name, argument in instructions():
        if name == "COPY":
            *sources, target = argument.split()[1:]
            for source in sources:
                if (clone.root / source).is_file():
                    shutil.copy(clone.root / source, built.root)
                else:
                    shutil.copytree(clone.root / source, built.root / target, dirs_exist_ok=True)
        elif name == "RUN" and not argument.startswith(AS_ROOT):
            built.run("sh", "-c", argument)
    yield built
    shutil.rmtree(built.root)


def test_the_image_is_built_from_the_lock_and_reproduces(container: Clone) -> None:
    assert ("RUN", "make environment") in instructions()
    assert ("CMD", json.dumps(["make", "repro"])) in instructions()
    assert ("ARG", "BASE=debian:13-slim") in instructions()
    done = container.run("make", "repro", "PROFILE=seconds")
    assert "3 of 3 runs" in done.stdout
    assert (
        container.run(".venv/bin/python", "-m", "pipeline", "doctor", check=False).stdout.count("WRONG packages") == 0
    )


def test_the_console_command_works_from_a_subfolder(container: Clone) -> None:
    command = container.root / ".venv" / "bin" / "residual-attention"
    done = container.run("sh", "-c", f"cd docs && {command} runs list")
    assert done.stdout.count("finished") == 3
    assert "residual-attention [-h]" in container.run(str(command), "--help").stdout


def test_uv_run_trains_in_the_environment_of_the_lock(container: Clone) -> None:
    params = container.root / "params.yaml"
    params.write_text(params.read_text().replace("seeds:\n- 0", "seeds:\n- 1"))
    uv = container.root / ".venv" / "bin" / "uv"
    done = container.run(str(uv), "run", "python", "-m", "pipeline", "launch", "--only", "attention56-s1")
    assert "attention56-s1 finished" in done.stdout + done.stderr
    assert not (container.root / "uv.lock").exists()


def test_a_download_without_git_is_reproduced_too(container: Clone) -> None:
    shutil.rmtree(container.root / ".git")
    assert "3 of 3 runs" in container.run("make", "repro").stdout
    assert "no_scm = true" in (container.root / ".dvc" / "config.local").read_text()
