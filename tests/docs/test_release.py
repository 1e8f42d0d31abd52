"""The version and the facts about the package are the same everywhere."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib

import pytest
import yaml

from workflow_scripts.common.provenance import PACKAGE, ROOT
from workflow_scripts.tools import lock_cuda

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"^## \[(\d.*?)\] - (\S+)$", changelog, re.MULTILINE)
    assert latest is not None
    version, date = latest.groups()
    assert version == PROJECT["project"]["version"] == citation["version"]
    assert date == str(citation["date-released"])


def test_licence_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PROJECT["project"]["license"]


def test_an_installed_package_has_its_data_files() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    listed = subprocess.run(
        ["git", "ls-files", PACKAGE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no clone, so that git cannot list the package's files")
    for file in listed.stdout.splitlines():
        name = file.rpartition("/")[2]
        assert name.endswith(".py") or any(
            fnmatch.fnmatch(name, pattern.rpartition("/")[2]) for pattern in patterns
        ), file


def normal(requirement: str) -> str:
    """Return the normalised name of a required package."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", requirement)[0]).lower()


def test_every_requirement_is_locked() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    required = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["dev"],
    ]
    assert set(map(normal, required)) <= set(map(normal, lock.splitlines()))


CUDA = (ROOT / "requirements-cuda.lock").read_text(encoding="utf-8")
PINNED = re.compile(r"^([\w.-]+)==([\w.!+]+) --hash=sha256:[0-9a-f]{64}$")


def test_the_lock_for_cuda_has_the_same_versions_and_no_tools() -> None:
    pins = [PINNED.match(line) for line in CUDA.splitlines() if not line.startswith("#")]
    assert all(pins)
    cuda = {normal(pin[1]): pin[2] for pin in pins if pin}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    cpu = dict(line.split("==") for line in lock.splitlines())
    cpu = {normal(name): version for name, version in cpu.items()}
    assert set(map(normal, PROJECT["project"]["dependencies"])) <= cuda.keys()
    other = {name: v for name, v in cuda.items() if cpu.get(name, v) != v}
    assert not other, "run python3.12 -m workflow_scripts.tools.lock_cuda"
    assert not cuda.keys() & {"pytest", "mypy", "ruff", "snakefmt", "hypothesis"}
    beyond = {name for name in cuda.keys() - cpu.keys() if not re.match("nvidia|cuda", name)}
    assert beyond <= {"triton", "setuptools"}


def test_the_container_installs_that_lock_with_its_python_and_cuda() -> None:
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes" in docker
    assert "-r /opt/diffscope/requirements-cuda.lock" in docker
    assert "ubuntu24.04" in docker  # its Python is 3.12
    assert lock_cuda.PYTHON == (3, 12)
    base = re.search(r"^FROM nvidia/cuda:(\d+)\.", docker, re.MULTILINE)
    runtime = re.search(r"^nvidia-cuda-runtime(?:-cu\d+)?==(\d+)\.", CUDA, re.MULTILINE)
    assert base is not None
    assert runtime is not None
    assert base[1] == runtime[1]
