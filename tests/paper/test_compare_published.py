"""Published against measured changes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from workflow_scripts.paper.compare_published import main, read_published
from workflow_scripts.provenance import ROOT

PUBLISHED = """\
level,name,published,unit,source,statement
category,advice,30.0,percent,a,abstract
category,news,-50.0,percent,a,abstract
category,narrative,10.0,percent,a,abstract
"""
CATEGORIES = """\
comparison,labeller,level,name,percent_change,low,high,q
anchored,lexical,category,advice,20,-10,60,0.5
anchored,lexical,category,news,20,-10,60,0.5
anchored,true,category,narrative,20,-10,60,0.5
direct,lexical,category,narrative,n/a,n/a,n/a,n/a
"""


def test_verdicts(tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_text(PUBLISHED)
    (tmp_path / "categories.csv").write_text(CATEGORIES)
    flags = [f"--{name}={tmp_path / name}.csv" for name in ("published", "categories")]
    output = tmp_path / "table.csv"
    assert main([*flags, "--comparison=anchored", f"--output={output}"]) == 0
    table = pd.read_csv(output).set_index("name")
    assert table["verdict"].to_dict() == {"advice": "OK", "news": "differs", "narrative": "NOT RUN"}


def test_missing_column_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "published.csv").write_text("level,name\n")
    (tmp_path / "categories.csv").write_text(CATEGORIES)
    flags = [f"--{name}={tmp_path / name}.csv" for name in ("published", "categories")]
    assert main([*flags, "--comparison=anchored", f"--output={tmp_path / 'out.csv'}"]) == 2
    assert "lacks the column published" in capsys.readouterr().err


def test_shipped_table_names_the_taxonomy() -> None:
    import yaml

    taxonomy = yaml.safe_load((ROOT / "config" / "taxonomy.yaml").read_text(encoding="utf-8"))
    names = {
        "category": {entry["id"] for entry in taxonomy["categories"]},
        "class": set(taxonomy["classes"]),
    }
    table = read_published(ROOT / "config" / "published.csv")
    for level, name in table[["level", "name"]].itertuples(index=False, name=None):
        assert name in names[level]
