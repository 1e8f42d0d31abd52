"""A Slurm of one node with two stand-in GPUs, from Debian's packages.

    sudo python -m tests.workflow.slurm.cluster start    # installs slurm and munge where missing
    sudo python -m tests.workflow.slurm.cluster stop

The GPUs are two device files that every machine has: Slurm counts and reserves them, nothing more.
There are no control groups and no accounting database, so that it runs in a container. Slurm reads
its configuration from /etc/slurm only; one that this script did not write is left alone.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.debian import install

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
CONFIG = Path("/etc/slurm/slurm.conf")
GRES = Path("/etc/slurm/gres.conf")
STATE = Path("/var/tmp/diffscope-slurm")
MARK = "# Written by tests/workflow/slurm/cluster.py"
GPUS = ("/dev/null", "/dev/zero")
CPUS, MEMORY = 4, 64_000
SECONDS = 30.0


def slurm_conf(host: str) -> str:
    """Return the configuration of a one-node cluster on ``host``."""
    sizes = f"CPUs={CPUS} RealMemory={MEMORY} Gres=gpu:{len(GPUS)}"
    return f"""{MARK}
ClusterName=diffscope
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=2
MinJobAge=3600
KillWait=2
StateSaveLocation={STATE}/ctld
SlurmdSpoolDir={STATE}/d
SlurmctldLogFile={STATE}/slurmctld.log
SlurmdLogFile={STATE}/slurmd.log
SlurmctldPidFile={STATE}/slurmctld.pid
SlurmdPidFile={STATE}/slurmd.pid
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 {sizes} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def host() -> str:
    """Return this node's name, as Slurm knows it."""
    return socket.gethostname().split(".")[0]


def why_not() -> str | None:
    """Return why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    if CONFIG.exists() and not CONFIG.read_text(encoding="utf-8").startswith(MARK):
        return f"{CONFIG} belongs to another cluster"
    if " " in sys.executable:
        return f"Snakemake does not quote the interpreter's path in a job: {sys.executable}"
    if not installed() and shutil.which("apt-get") is None:
        return "Slurm is not installed, and there is no apt-get to install it"
    return None


def installed() -> bool:
    """Return whether all programs are there."""
    return all(shutil.which(program) for program in PROGRAMS)


def start() -> None:
    """Start munge, the controller and the node; return when the node takes jobs."""
    if told := why_not():
        raise SystemExit(f"error: {told}")
    if not installed():
        install(PACKAGES)
    stop()
    for folder in (STATE, STATE / "ctld", STATE / "d"):
        folder.mkdir(parents=True, exist_ok=True)
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    CONFIG.write_text(slurm_conf(host()), encoding="utf-8")
    lines = "".join(f"NodeName={host()} Name=gpu File={gpu}\n" for gpu in GPUS)
    GRES.write_text(f"{MARK}\n{lines}", encoding="utf-8")
    start_munge()
    subprocess.run(["slurmctld"], check=True, capture_output=True)
    subprocess.run(["slurmd", "-N", host()], check=True, capture_output=True)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if node_state() == "idle":
            return
        time.sleep(0.3)
    raise SystemExit(f"error: the node is {node_state() or 'not known'}: see {STATE}/*.log")


@contextmanager
def running() -> Iterator[None]:
    """Have a cluster in the block; another process that wants one of its own waits."""
    with Path("/var/tmp/diffscope-slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start()
        try:
            yield
        finally:
            stop()


def start_munge() -> None:
    """Start munge's daemon unless it answers already."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    user = pwd.getpwnam("munge")
    run = Path("/run/munge")
    run.mkdir(exist_ok=True)
    run.chmod(0o755)
    os.chown(run, user.pw_uid, user.pw_gid)
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True, capture_output=True)


def node_state() -> str:
    """Return the node's state in Slurm's words; empty where the controller does not answer.

    A star, which marks a node that is slow to answer, is left out.
    """
    command = ["sinfo", "--noheader", "--partition=cpu", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip(" *\n")


def stop() -> None:
    """Stop this script's daemons and remove what they left, the configuration too."""
    if CONFIG.exists() and not CONFIG.read_text(encoding="utf-8").startswith(MARK):
        return
    for name in ("slurmd", "slurmctld"):
        pid = STATE / f"{name}.pid"
        if pid.exists():
            end_process(int(pid.read_text(encoding="utf-8").strip() or 0), name)
    shutil.rmtree(STATE, ignore_errors=True)
    for file in (CONFIG, GRES):
        file.unlink(missing_ok=True)


def end_process(pid: int, name: str) -> None:
    """Ask process ``pid`` to end if it is the daemon ``name``, then make it."""
    command = Path(f"/proc/{pid}/comm")
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + 10
        if not pid or not command.exists() or command.read_text().strip() != name:
            return
        os.kill(pid, wanted)
        while time.monotonic() < end and command.exists():
            time.sleep(0.1)


def main(argv: Sequence[str] | None = None) -> int:
    """Start or stop the cluster."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["start", "stop"])
    action = parser.parse_args(argv).action
    if action == "stop":
        stop()
        return 0
    start()
    print(f"the node {host()} is {node_state()}: {CPUS} CPUs, {len(GPUS)} stand-in GPUs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
