"""Another workflow imports this one from its clone, by ``module:``, and runs its steps."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.workflow import running
from workflow_scripts.common.provenance import ROOT

OTHER = """
configfile: "smoke.yaml"


module diffscope:
    snakefile: "{root}/Snakefile"
    config: config


use rule * from diffscope


rule mine:
    default_target: True
    input:
        "results/smoke/report/card.md",
    output:
        "card.txt",
    shell:
        "cp {{input}} {{output}}"
"""


@pytest.mark.workflow
def test_another_workflow_imports_this_one(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "config/smoke.yaml", tmp_path / "smoke.yaml")
    (tmp_path / "Snakefile").write_text(OTHER.format(root=ROOT), encoding="utf-8")
    plan = running.snakemake(tmp_path, "-n")
    assert {"mine", "build_report", "explain_lexical"} <= running.planned(plan)
    documents = re.search(r"results/store/\w+/documents/shard000\.parquet", plan)
    assert documents is not None
    running.snakemake(tmp_path, "--cores", "1", "--", documents[0])
    assert (tmp_path / documents[0]).exists()
