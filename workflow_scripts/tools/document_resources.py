"""Write the table of docs/cluster.md: ``python -m workflow_scripts.tools.document_resources``.

It says what each rule requests at the size of config/paper.yaml, and why. A test fails when the
file and the code differ.
"""

from __future__ import annotations

import re

import yaml

from workflow_scripts.common.provenance import ROOT
from workflow_scripts.run.load import load
from workflow_scripts.run.resources import REQUESTS, request

TARGET = ROOT / "docs" / "cluster.md"
PAPER = ROOT / "config" / "paper.yaml"
START, END = "<!-- requests -->\n", "<!-- /requests -->"


def document_resources() -> str:
    """Return the text of docs/cluster.md with its table updated."""
    config = load(yaml.safe_load(PAPER.read_text(encoding="utf-8")))
    on_gpu = {name for name, needed in profile()["set-resources"].items() if needed.get("gpu")}
    lines = ["| rule | GPU | memory | time | why |", "|---|---|---|---|---|"]
    absent = {
        rule
        for rule, origin in (("train_organism", "organism"), ("convert_gguf", "gguf"))
        if not any(getattr(model, origin) for model in config.models.values())
    }
    for step, function in REQUESTS.items():
        if step in absent:
            continue
        needed = request(config, step)
        why = " ".join((function.__doc__ or "").split())
        gpu = "1" if step in on_gpu else "–"
        hours = f"{needed.runtime / 60:.1f} h"
        lines.append(f"| `{step}` | {gpu} | {needed.mem_mb / 1000:.0f} GB | {hours} | {why} |")
    table = "\n".join(lines) + "\n"
    text = TARGET.read_text(encoding="utf-8")
    return re.sub(f"{START}.*?{END}", f"{START}{table}{END}", text, flags=re.DOTALL)


def profile() -> dict[str, dict[str, dict[str, object]]]:
    """Return the Slurm profile."""
    text = (ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(text)
    return content


def main() -> int:
    """Write the file."""
    TARGET.write_text(document_resources(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
