"""Tasks of a job array find their own commands, in the form in which the plugin hands them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_slurm_jobstep import _decompress_array_task_call

from tests.workflow import running
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.run.array_tasks import OPTION, PLUGIN, own_command, part_arrays

COMMANDS = {"5": "echo five", "6": "echo 'six' && exit 3"}
PAYLOAD = base64.b64encode(
    json.dumps({k: zlib.compress(v.encode(), 9).hex() for k, v in COMMANDS.items()}).encode()
).decode()


def task(number: int) -> dict[str, str]:
    """Return the environment of a task of the array 4-6."""
    return {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_MIN": "4"}


@pytest.mark.parametrize("arguments", [[OPTION, PAYLOAD], [f"{OPTION}={PAYLOAD}"]])
@pytest.mark.parametrize("number", [5, 6])
def test_a_task_finds_its_own_command(arguments: list[str], number: int) -> None:
    found = own_command(["snakemake", "--jobs", "1", *arguments], task(number))
    assert found == COMMANDS[str(number)] == _decompress_array_task_call(PAYLOAD, number)


def test_others_go_on() -> None:
    assert own_command(["snakemake", f"{OPTION}={PAYLOAD}"], task(4)) is None  # the first task
    assert own_command(["snakemake", "--jobs", "1"], task(5)) is None  # a task's own command
    assert own_command(["snakemake", f"{OPTION}={PAYLOAD}"], {}) is None  # no array


def test_a_task_becomes_its_own_command() -> None:
    code = "import sys; from workflow_scripts.run.array_tasks import give_way; give_way(sys.argv)"
    done = subprocess.run(
        [sys.executable, "-c", code, f"{OPTION}={PAYLOAD}"],
        cwd=ROOT,
        env=running.environment() | task(6),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("six\n", 3)


@dataclass
class Executor:
    """Keeps what the plugin's executor would submit."""

    arrays: list[list[str]] = field(default_factory=list)
    single: list[str] = field(default_factory=list)

    def _submit_array_jobs(self, jobs: list[SimpleNamespace]) -> None:
        self.arrays.append([job.name for job in jobs])

    def _submit_job(self, job: SimpleNamespace) -> None:
        self.single.append(job.name)


def test_jobs_of_an_array_ask_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PLUGIN, SimpleNamespace(Executor=Executor))
    part_arrays()
    part_arrays()  # once is enough
    asked = {"a": 5, "b": 5, "repeated": 10, "c": 5}
    jobs = [
        SimpleNamespace(name=name, threads=1, resources={"mem_mb": mem, "tmpdir": object()})
        for name, mem in asked.items()
    ]
    executor = Executor()
    executor._submit_array_jobs(jobs)
    assert (executor.arrays, executor.single) == ([["a", "b", "c"]], ["repeated"])


def test_the_plugin_has_what_is_mended() -> None:
    plugin = pytest.importorskip(PLUGIN)
    assert callable(plugin.Executor._submit_array_jobs)
    assert callable(plugin.Executor._submit_job)
