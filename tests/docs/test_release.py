"""The version and the facts about the package are the same everywhere."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib

import pytest
import yaml

from workflow_scripts.common.provenance import PACKAGE, ROOT

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
