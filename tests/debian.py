"""Programs that tests need from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial


def can_install() -> bool:
    """Return whether packages can be installed here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str]) -> None:
    """Install packages with apt-get, after an update where the known ones are too old."""
    settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Files of the system are for all users, whatever this user's umask.
    run = partial(subprocess.run, env=settings, capture_output=True, umask=0o022)
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if run(command, check=False).returncode:
        run(["apt-get", "update", "-q"], check=True)
        run(command, check=True)
