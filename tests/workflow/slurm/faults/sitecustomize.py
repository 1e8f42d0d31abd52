"""Faults for tests; Python runs this file at its start where PYTHONPATH names its folder.

A step whose name is a file in the folder DIFFSCOPE_FAULTS fails once, in the way that the file
says: `kill` ends it by SIGKILL, as a machine short of memory does; `hang` makes it sleep until
its time is up.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path


def fail_once() -> None:
    """Fail if this process is a step that a file asks to fail, and take the file away."""
    folder, arguments = os.environ.get("DIFFSCOPE_FAULTS"), sys.orig_argv
    if not folder or "-m" not in arguments[:-1]:
        return
    module = arguments[arguments.index("-m") + 1]
    if not module.startswith("workflow_scripts."):
        return
    fault = Path(folder, module.rsplit(".", 1)[1])
    taken = fault.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        way = fault.read_text()
        fault.rename(taken)
        print(f"made to {way} by a test", file=sys.stderr, flush=True)
        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600)


fail_once()
