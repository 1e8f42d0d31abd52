"""Every step that takes a device runs on a pretended GPU, with the smoke run's inputs."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import get_type_hints

import pytest

from tests.emulator import pretended_gpu
from tests.workflow import running
from tests.workflow.running import Run
from workflow_scripts.common.device import Device
from workflow_scripts.common.provenance import PACKAGE
from workflow_scripts.run import store_keys

pytestmark = pytest.mark.workflow

ON_CPU = "crosscoder.import_crosscoder"  # has the flags of the others, but takes threads alone
COMMAND = re.compile(rf"python (?:-m torch\S+ .*)?-m ({PACKAGE}\.\S+) (.*--device=.*)")


def taking_a_device() -> set[str]:
    """Return the modules of the steps that compute on a device of choice."""
    found = set()
    for name in store_keys.steps():
        if name == ON_CPU:
            continue
        module = f"{PACKAGE}.{name}"
        hints = get_type_hints(importlib.import_module(module).main.step).values()
        if any(inspect.isclass(hint) and issubclass(hint, Device) for hint in hints):
            found.add(module)
    return found


@pytest.fixture(scope="module")
def tree(smoke_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run."""
    return smoke_run.copy(tmp_path_factory.mktemp("devices") / "tree")


@pytest.fixture(scope="module")
def commands(tree: Path) -> dict[str, list[str]]:
    """The arguments of one job of each step that takes a device."""
    printed = running.smoke(tree, "-n", "-p", "--forceall")
    return {module: shlex.split(arguments) for module, arguments in COMMAND.findall(printed)}


def test_the_run_has_every_step_that_takes_a_device(commands: dict[str, list[str]]) -> None:
    assert set(commands) == taking_a_device()


@pytest.mark.parametrize("module", sorted(taking_a_device()))
def test_no_step_mixes_devices(
    module: str, tree: Path, commands: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor left on the CPU, or brought to numpy from the GPU, ends a step with an error."""
    monkeypatch.chdir(tree)
    arguments = [re.sub("^--device=.*", "--device=cuda", each) for each in commands[module]]
    with pretended_gpu() as gpu:
        assert importlib.import_module(module).main(arguments) == 0
    assert gpu.waits  # it has been used
