"""Build the documentation as a site, strictly: ``make docs``.

The pages keep their places, so that they read alike in the repository and on the site; mkdocs wants
them in a folder of their own. Its packages are the extra ``docs`` of pyproject.toml: they are
installed into a folder, beside the environment, not in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from workflow_scripts.common import cli
from workflow_scripts.common.provenance import PACKAGE, ROOT

BUILD = ROOT / "build"
PARTS = ("LICENSE", "CITATION.cff", "config/taxonomy.yaml", "notebooks/explore.ipynb")
"""Files beside pages to which pages lead."""
FOLDERS = (".", "config", "results", "docs", f"{PACKAGE}/*")
"""Folders with pages."""


def pages(root: Path = ROOT) -> list[Path]:
    """Return the files of the site, relative to the root: pages and what they lead to."""
    found = [file for folder in FOLDERS for file in root.glob(f"{folder}/*.md")]
    found += [
        file for folder in ("docs/img", "docs/extending") for file in root.glob(f"{folder}/*")
    ]
    return sorted({file.relative_to(root) for file in found} | {Path(part) for part in PARTS})


def stage(folder: Path, root: Path = ROOT) -> None:
    """Copy the site's files to a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages(root):
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / page, target)


def install(packages: Path) -> None:
    """Install mkdocs and its plugins into a folder, unless they are there."""
    if (packages / "mkdocs").exists():
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"]["docs"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(packages), *wanted], check=True)


def build_site() -> None:
    """Build the site in ``build/site``; a broken link is an error.

    Raises
    ------
    UserError
        If mkdocs refuses a page.
    """
    packages = BUILD / "docs_packages"
    install(packages)
    stage(BUILD / "site_source")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build"],  # with --quiet it would count no warning
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
            "NO_MKDOCS_2_WARNING": "1",  # an advertisement
        },
        check=False,
    )
    if done.returncode:
        raise cli.UserError("the site was not built: correct what mkdocs names above")
    print(f"site: {BUILD.relative_to(ROOT) / 'site' / 'index.html'}")


main = cli.command(build_site)


if __name__ == "__main__":
    raise SystemExit(main())
