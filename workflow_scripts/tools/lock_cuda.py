"""Write requirements-cuda.lock: ``python -m workflow_scripts.tools.lock_cuda``, with Python 3.12.

What a run needs on a machine with NVIDIA GPUs, without the developers' tools: every package with
its version and the hash of its file for Linux on x86-64 and the Python of the Dockerfile. Versions
are those of requirements.lock; torch's CUDA libraries come on top. pip finds them by metadata
alone; only sources of packages without wheels are fetched. A test fails when the two locks differ.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from workflow_scripts.common import cli
from workflow_scripts.common.provenance import ROOT

PYTHON = (3, 12)
"""That of the Dockerfile's base."""
TARGET = ROOT / "requirements-cuda.lock"
HEADER = (
    "# Written by `python -m workflow_scripts.tools.lock_cuda` from requirements.lock: what a run "
    "needs\n# on Linux with CUDA, x86-64, Python {}.{}. Install it by pip with --require-hashes.\n"
)


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed() -> list[str]:
    """Return what pyproject.toml says that a run needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements: list[str] = project["dependencies"]
    return requirements


def resolved() -> dict[str, Any]:
    """Return pip's report on what it would install from the package index.

    Raises
    ------
    UserError
        If this Python is another one than the Dockerfile's, or pip fails.
    """
    if sys.version_info[:2] != PYTHON:
        raise cli.UserError(
            f"this is Python {sys.version_info[0]}.{sys.version_info[1]}: pip judges conditions by "
            f"its own, so run it with Python {PYTHON[0]}.{PYTHON[1]}, as in the Dockerfile"
        )
    # Neither local wheels nor other indexes of this machine: the lock is for every machine.
    own = {name: value for name, value in os.environ.items() if not _chooses_index(name)}
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
        *("--prefer-binary", "--report", "-", "--constraint", "requirements.lock"),
        *needed(),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=own | {"PIP_CONFIG_FILE": os.devnull},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise cli.UserError("pip found no set of packages: its message is above")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _chooses_index(name: str) -> bool:
    return name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line per package of pip's report, by name."""
    for item in sorted(report["install"], key=lambda item: normal(item["metadata"]["name"])):
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        yield f"{name}=={version} --hash=sha256:{digest}"


def lock_cuda() -> None:
    """Write the lock."""
    text = HEADER.format(*PYTHON) + "\n".join(lines(resolved())) + "\n"
    TARGET.write_text(text, encoding="utf-8")
    cli.log(f"{TARGET.name}: {text.count('==')} packages")


main = cli.command(lock_cuda)


if __name__ == "__main__":
    raise SystemExit(main())
