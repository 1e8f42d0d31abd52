"""The smoke config through profiles/slurm on a one-node cluster, with faults, ends as a local run.

Needs root and Debian's Slurm (installed by apt-get where missing); elsewhere the test is skipped,
and pytest says why.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.workflow import running
from tests.workflow.running import Run
from tests.workflow.slurm import cluster
from tests.workflow.slurm.jobs import Job, jobs, peak_gpus

pytestmark = pytest.mark.workflow

HERE = Path(__file__).parent
LATE = "patch_latents"
"""A rule with one job, for which no other waits long."""
FAULTS = {"dump_activations": "kill", LATE: "hang"}
FLAGS = (
    *("--workflow-profile", "profiles/slurm", "--configfile", "config/smoke.yaml"),
    *("--slurm-no-account", "--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "4", "--latency-wait", "10"),
)
LIMIT = 900.0


class Finished(NamedTuple):
    """A run through Slurm: its tree, what it printed, its jobs, the node's states on the way."""

    folder: Path
    output: str
    jobs: list[Job]
    states: list[str]


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A cluster of one node."""
    if told := cluster.why_not():
        pytest.skip(f"the Slurm profile is NOT TESTED here: {told}")
    with cluster.running():
        yield


@pytest.fixture(scope="module")
def finished(
    slurm: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    """The smoke config run through the profile: a job is killed, one hangs, the node is drained."""
    folder = running.copy_tree(tmp_path_factory.mktemp("slurm") / "tree")
    ask_for_little_time(folder / "profiles/slurm/config.yaml", LATE)
    faults = folder.parent / "faults"
    faults.mkdir()
    for step, fault in FAULTS.items():
        (faults / step).write_text(fault)
    settings = {"PYTHONPATH": str(HERE / "faults"), "DIFFSCOPE_FAULTS": str(faults)}
    printed = folder.parent / "printed"
    with printed.open("w") as file:
        process = subprocess.Popen(
            running.command(*FLAGS),
            cwd=folder,
            env=running.environment() | settings,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            states = drain_and_resume(process, "dump_activations")
            process.wait(LIMIT)
        finally:
            process.kill()
            process.wait()
    output = printed.read_text(encoding="utf-8")
    assert process.returncode == 0, output[-8000:]
    yield Finished(folder, output, jobs(), states)
    if not request.session.testsfailed:
        shutil.rmtree(folder)


def ask_for_little_time(profile: Path, rule: str) -> None:
    """Let jobs of ``rule`` ask for as many minutes as attempts; flags would replace the profile."""
    settings = yaml.safe_load(profile.read_text(encoding="utf-8"))
    settings["set-resources"].setdefault(rule, {})["runtime"] = "attempt"
    profile.write_text(yaml.safe_dump(settings), encoding="utf-8")


def drain_and_resume(process: subprocess.Popen[bytes], rule: str) -> list[str]:
    """Drain the node while jobs of ``rule`` run; resume it when jobs wait; return its states."""
    await_job(process, lambda job: job.rule == rule and job.state == "RUNNING")
    scontrol("State=DRAIN", "Reason=test")
    states = [cluster.node_state()]
    await_job(process, lambda job: job.state == "PENDING")
    states.append(cluster.node_state())
    scontrol("State=RESUME")
    states.append(cluster.node_state())
    return states


def await_job(process: subprocess.Popen[bytes], wanted: Callable[[Job], bool]) -> None:
    """Return when a job is as wanted, while the run goes on."""
    end = time.monotonic() + LIMIT
    while not any(wanted(job) for job in jobs()):
        assert process.poll() is None, "the run ended before its time"
        assert time.monotonic() < end, "no such job was seen"
        time.sleep(0.5)


def scontrol(*changes: str) -> None:
    """Change the node."""
    command = ["scontrol", "update", f"NodeName={cluster.host()}", *changes]
    subprocess.run(command, check=True, capture_output=True)


def test_result_equals_that_of_a_local_run(finished: Finished, smoke_run: Run) -> None:
    local = running.hashes(smoke_run.folder / "results")
    ours = running.hashes(finished.folder / "results")
    assert set(ours) == set(local)
    assert {name for name in local if local[name] != ours[name]} == set()


def test_gpu_jobs_never_exceed_the_gpus(finished: Finished) -> None:
    on_gpu = [job for job in finished.jobs if job.gpus]
    assert {job.partition for job in on_gpu} == {"gpu"}
    assert len(on_gpu) > len(cluster.GPUS)
    assert peak_gpus(finished.jobs) == len(cluster.GPUS)
    assert not [job for job in finished.jobs if job.partition == "gpu" and not job.gpus]


def test_killed_job_is_repeated_with_more_memory(finished: Finished) -> None:
    dumps = [job for job in finished.jobs if job.rule == "dump_activations"]
    failed = [job for job in dumps if job.state == "FAILED"]
    assert len(failed) == 1
    again = [job for job in dumps if job.id > failed[0].id and job.mem_mb > 1.9 * failed[0].mem_mb]
    assert [job.state for job in again] == ["COMPLETED"]
    others = [job.state for job in dumps if job not in failed + again]
    assert len(others) > 1
    assert set(others) == {"COMPLETED"}


def test_job_beyond_its_time_is_repeated_with_more_time(finished: Finished) -> None:
    first, *others = sorted(
        (job for job in finished.jobs if job.rule == LATE), key=lambda job: job.id
    )
    assert (first.state, first.limit) == ("TIMEOUT", "00:01:00")
    assert others[0].limit == "00:02:00"
    assert others[-1].state == "COMPLETED"


def test_drained_node_went_on_when_resumed(finished: Finished) -> None:
    before, drained, after = finished.states
    assert before in ("draining", "drained")
    assert drained in ("draining", "drained")
    assert after in ("idle", "mixed", "allocated")


@pytest.mark.parametrize(
    ("rule", "state", "told"),
    [
        ("dump_activations", "FAILED", "made to kill by a test"),
        (LATE, "TIMEOUT", "DUE TO TIME LIMIT"),
    ],
)
def test_failed_job_names_its_log_which_is_kept(
    finished: Finished, rule: str, state: str, told: str
) -> None:
    job = next(job for job in finished.jobs if (job.rule, job.state) == (rule, state))
    message = re.search(rf"^Error in rule {rule}:.*?\n\n", finished.output, re.DOTALL | re.M)
    assert message is not None
    log = re.search(r"log: (\S+\.log)", message.group(0))
    assert log is not None
    assert (finished.folder / log.group(1)).exists()
    assert Path(job.log).name in finished.output
    assert told in Path(job.log).read_text(encoding="utf-8")


def test_nothing_else_was_lost(finished: Finished) -> None:
    lost = [job for job in finished.jobs if job.state != "COMPLETED"]
    assert {(job.rule, job.state) for job in lost} == {
        ("dump_activations", "FAILED"),
        (LATE, "TIMEOUT"),
    }
    print(
        f"{len(finished.jobs)} jobs, {len(lost)} repeated, "
        f"at most {peak_gpus(finished.jobs)} GPUs in use at once"
    )
