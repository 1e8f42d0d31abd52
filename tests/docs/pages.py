"""The pages of the documentation and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

from workflow_scripts.common.provenance import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(
    r"# (needs (a GPU|a cluster|a key|the network|the package index|root on Debian or Ubuntu)"
    r"|takes (about an hour|minutes))$"
)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    found: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
    )
    return found


def commands(page: Path) -> list[str]:
    """Return the commands of a page's shell blocks, comments as they are."""
    lines = [line.rstrip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def unmarked(page: Path) -> list[str]:
    """Return the commands that can be run anywhere, without comments."""
    lines = [line for line in commands(page) if not MARK.search(line)]
    return [line.partition("  #")[0].strip() for line in lines]


TUTORIAL = unmarked(ROOT / "docs/tutorial.md")
MY_MODELS = next(b for b in blocks(ROOT / "docs/tutorial.md", "yaml") if "my_models.yaml" in b)
"""The config of the tutorial."""
