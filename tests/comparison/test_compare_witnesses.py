"""Each witness is judged against its own null: a test, a placebo, or the other labels."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison import compare_answers, compare_predictions, compare_witnesses
from workflow_scripts.comparison.category_table import COLUMNS as CATEGORY_COLUMNS
from workflow_scripts.comparison.judge_changes import COLUMNS as CHANGE_COLUMNS
from workflow_scripts.figures import plot_witnesses

LABELS = ("code", "legal", "news", "prose", "sums", "tables")
PLANTED = "code"


def changes(comparison: str, planted: float) -> pd.DataFrame:
    """Return changes.csv in which one label differs, by every measure."""
    table = pd.DataFrame(index=range(len(LABELS)), columns=list(CHANGE_COLUMNS), dtype=object)
    size = np.where(np.array(LABELS) == PLANTED, planted, 0.1) + 0.002 * np.arange(len(LABELS))
    for name in ("behaviour", "representation", "distance", "divergence", "unique_mass"):
        table[name], table[f"{name}_low"], table[f"{name}_high"] = size, 0.9 * size, 1.1 * size
    for axis in ("behaviour", "representation"):
        table[f"{axis}_q"], table[f"{axis}_least"] = np.where(size > 0.5, 0.001, 0.6), 0.3
    table = table.assign(comparison=comparison, baseline="it", candidate="simpo", seed=0)
    return table.assign(labeller="true", label=LABELS, verdict="unchanged")


def run(folder: Path, comparisons: dict[str, float], placebo: str | None) -> pd.DataFrame:
    """Run the step on comparisons whose planted label has a size; return its table."""
    write_csv(folder / "changes.csv", pd.concat([changes(*item) for item in comparisons.items()]))
    categories = pd.DataFrame(
        [dict.fromkeys(CATEGORY_COLUMNS)], columns=list(CATEGORY_COLUMNS)
    ).assign(comparison="direct", seed=0, labeller="true", level="category", name=PLANTED)
    categories = categories.assign(unique_share=0.4, unique_share_low=0.3, unique_share_high=0.5)
    categories = categories.assign(detectable_share=0.1, detection_q=0.01, called="yes")
    write_csv(folder / "categories.csv", categories)
    further = {}
    for name, planted in comparisons.items():
        apart = changes(name, planted)
        predictions, answers = folder / f"{name}.csv", folder / f"{name}_answers.csv"
        own = apart[["labeller", "label"]].assign(documents=9)
        for column in ("divergence", "shift"):
            ends = (f"{column}{end}" for end in ("", "_low", "_high"))
            for end, source in zip(ends, ("", "_low", "_high"), strict=True):
                own[end] = apart[f"divergence{source}"]
        write_csv(predictions, own, compare_predictions.LABEL_COLUMNS)
        said = own.rename(columns={"shift": "difference", "shift_low": "low", "shift_high": "high"})
        write_csv(answers, said.assign(measure="distance"), compare_answers.COLUMNS)
        files = {"predictions": str(predictions), "answers": str(answers)}
        further[name] = {"seed": 0, "placebo": placebo if name == "direct" else None, **files}
    flags = [f"--{name}={folder / name}.csv" for name in ("changes", "categories")]
    flags += [f"--comparisons={json.dumps(further)}", f"--output={folder / 'witnesses.csv'}"]
    assert compare_witnesses.main(flags) == 0
    table = read_csv(folder / "witnesses.csv")
    assert list(table) == list(compare_witnesses.COLUMNS)
    return table[table["comparison"] == "direct"]


def called(table: pd.DataFrame) -> dict[str, set[str]]:
    """Return by witness the labels that stand out."""
    out = table[table["stands_out"] == "yes"]
    return {witness: set(out.loc[out["witness"] == witness, "label"]) for witness in WITNESSES}


WITNESSES = (
    *("likelihood", "distance", "predictions", "mean difference", "unique mass", "answers"),
    "latents",
)


@pytest.mark.parametrize("placebo", [None, "again"])
def test_every_witness_finds_the_planted_label_alone(tmp_path: Path, placebo: str | None) -> None:
    table = run(tmp_path, {"direct": 2.0, "again": 0.11}, placebo)
    assert called(table) == {witness: {PLANTED} for witness in WITNESSES}


def test_what_a_placebo_shows_too_does_not_stand_out(tmp_path: Path) -> None:
    found = called(run(tmp_path, {"direct": 2.0, "again": 2.0}, "again"))
    for witness in ("predictions", "mean difference", "unique mass", "answers"):
        assert found[witness] == set()


def test_nothing_stands_out_where_all_are_alike(tmp_path: Path) -> None:
    found = called(run(tmp_path, {"direct": 0.1}, None))
    assert {witness for witness, labels in found.items() if labels} == {"latents"}


def test_the_figure_shows_every_label_and_witness(tmp_path: Path) -> None:
    run(tmp_path, {"direct": 2.0}, None)
    facts = {"labeller": "true", "baseline": "it", "candidate": "simpo"}
    (tmp_path / "answer.json").write_text(json.dumps(facts))
    planted = {"baseline": "it", "candidate": "simpo", "category": PLANTED, "planted": "gained"}
    write_csv(tmp_path / "planted.csv", [planted])
    flags = [f"--witnesses={tmp_path / 'witnesses.csv'}", f"--answer={tmp_path / 'answer.json'}"]
    flags += ["--comparison=direct", f"--planted={tmp_path / 'planted.csv'}"]
    flags += [f"--{name}={tmp_path / f'figure.{name}'}" for name in ("png", "pdf")]
    assert plot_witnesses.main([*flags, f"--table={tmp_path / 'figure.csv'}"]) == 0
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    ratios, out = plot_witnesses.grids(read_csv(tmp_path / "figure.csv"))
    assert list(ratios.columns) == list(WITNESSES)
    assert ratios.index[0] == PLANTED
    assert out.loc[PLANTED].all()
    truth = plot_witnesses.read_truth(tmp_path / "planted.csv", "it", "simpo")
    assert plot_witnesses.named(PLANTED, truth) == f"{PLANTED} (gained)"


def test_columns_are_described() -> None:
    text = Path(compare_witnesses.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    section = next(part for part in text.split("\n## ") if part.startswith("witnesses.csv"))
    assert re.findall(r"^\| `(\w+)`", section, re.M) == list(compare_witnesses.COLUMNS)
