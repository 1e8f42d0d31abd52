"""Programs that tests need from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence


def can_install() -> bool:
    """Return whether packages can be installed here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str]) -> None:
    """Install packages with apt-get, after an update where the known ones are too old."""
    settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if subprocess.run(command, env=settings, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "update", "-q"], env=settings, check=True, capture_output=True)
        subprocess.run(command, env=settings, check=True, capture_output=True)
