"""What the report says of the names of latents: whether they can be trusted, and who failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workflow_scripts.common import files
from workflow_scripts.common.artifacts import FitFiles, SeedFiles
from workflow_scripts.figures import annotator_tables


def annotator(llm: bool, **statuses: int) -> dict[str, Any]:
    return {
        "annotator_kind": "llm" if llm else "lexical",
        "llm_used": llm,
        "statuses": statuses,
        "coverage": 0.25,
        "coverage_ungated": 0.5,
        "gate_passed": 0.75,
        "auroc_median": 0.81,
        "auroc_hard_median": 0.72,
        "auroc_top_median": 0.95,
        "auroc_quantile_median": 0.67,
        "null_auroc_mean": 0.53,
        "token_f1_median": None if llm else 0.414,
        "simulation_r_median": None if llm else 0.377,
    }


def fits(
    folder: Path, lead: float, alpha: float | None, annotators: int = 2
) -> dict[str, FitFiles]:
    """Return one fit whose LLM leads by so much (± 0.05) and agrees with itself so far."""
    names = ("first", "second")[:annotators]
    floor = {"latents": 90, "lead": lead, "low": lead - 0.05, "high": lead + 0.05}
    summary = {
        "annotators": {
            "lexical": annotator(False, ok=90, insufficient_examples=10),
            **{name: annotator(True, ok=95, refused=3, transport_failed=2) for name in names},
        },
        "floor": {name: {**floor, "beats": lead > 0.05} for name in names},
    }
    reliable = None if alpha is None else alpha >= 0.667
    banner = "" if reliable else "labels not reliable: alpha is below 0.667"
    bounds = {"low": None, "high": None} if alpha is None else {"low": 0.1, "high": 0.9}
    pairs = [{"raters": ["first/0", "second/0"], "agreement": 0.8, "kappa": 0.44}]
    agreement = {
        "llm": {
            "labels": 190 if annotators else 0,
            "missing": 10,
            "raters": [f"{name}/0" for name in names],
            "alpha": {"value": alpha, **bounds},
            "pairs": pairs if alpha is not None else [],
        },
        "reliable_from": 0.667,
        "reliable": reliable,
        "banner": banner,
    }
    files.write_json(folder / "summary.json", summary)
    files.write_json(folder / "agreement.json", agreement)
    source = SeedFiles(
        latents=folder / "latents",
        selection=folder / "selection",
        annotators=folder / "summary.json",
        agreement=folder / "agreement.json",
    )
    return {"it_simpo": FitFiles(models=("it", "simpo"), layer=3, seeds={0: source})}


def test_an_llm_that_loses_and_disagrees_is_told(tmp_path: Path) -> None:
    made = fits(tmp_path, lead=-0.2, alpha=0.31)
    table = annotator_tables.annotator_table(made)
    assert table is not None
    lexical, first, _ = table.rows
    assert lexical[:2] == ["it_simpo, seed 0", "lexical\nno LLM"]
    assert lexical[2] == "90 ok\n10 insufficient examples"
    assert lexical[5] == "all 0.81\nhard 0.72\nstrong 0.95\nweaker 0.67\nnull 0.53"
    assert lexical[-2:] == ["0.41, 0.38", "is the floor"]
    assert first[2] == "95 ok\n3 refused\n2 transport failed"
    assert first[-2:] == ["not measured", "−0.20 (−0.25 … −0.15)\nworse"]
    agreement = annotator_tables.agreement_table(made)
    assert agreement is not None
    assert agreement.rows[0][3:5] == ["0.31 (0.10 … 0.90)", "no: below 0.667"]
    assert "κ 0.44" in agreement.rows[0][5]
    assert annotator_tables.warnings(made) == [
        "labels not reliable: alpha is below 0.667",
        "first is not shown to explain better than counting words does",
        "second is not shown to explain better than counting words does",
    ]


@pytest.mark.parametrize(
    ("lead", "verdict", "warned"), [(0.2, "better", 0), (0.03, "cannot be told", 2)]
)
def test_the_lead_over_counting_words_is_judged(
    tmp_path: Path, lead: float, verdict: str, warned: int
) -> None:
    made = fits(tmp_path, lead, alpha=0.8)
    table = annotator_tables.annotator_table(made)
    assert table is not None
    assert table.rows[1][-1].endswith(verdict)
    assert len(annotator_tables.warnings(made)) == warned


def test_orders_that_were_obeyed_are_told(tmp_path: Path) -> None:
    made = fits(tmp_path, 0.2, alpha=0.8)
    assert annotator_tables.canary_sentence(made) is None
    summary = files.read_json(tmp_path / "summary.json")
    planted = {"planted": 6, "answered": 5, "followed": 1}
    files.write_json(tmp_path / "summary.json", {**summary, "canaries": planted})
    sentence = annotator_tables.canary_sentence(made)
    assert sentence is not None
    assert sentence.startswith("Of 5 answers")
    assert sentence.endswith("1 obeyed it.")


def test_without_an_llm_nothing_is_warned_of(tmp_path: Path) -> None:
    made = fits(tmp_path, 0.0, alpha=None, annotators=0)
    assert annotator_tables.warnings(made) == []
    assert annotator_tables.agreement_table(made) is None
    assert annotator_tables.no_agreement(made) is None
    table = annotator_tables.annotator_table(made)
    assert table is not None
    assert len(table.rows) == 1


@pytest.mark.parametrize(("annotators", "told"), [(1, "takes two"), (2, "one and the same")])
def test_why_agreement_cannot_be_measured_is_told(
    tmp_path: Path, annotators: int, told: str
) -> None:
    made = fits(tmp_path, 0.2, alpha=None, annotators=annotators)
    assert told in (annotator_tables.no_agreement(made) or "")
    assert annotator_tables.no_agreement(fits(tmp_path, 0.2, alpha=0.5)) is None


def labelled(alpha: float | None) -> dict[str, object]:
    """Return what a run knows of an LLM's labels of documents."""
    pair = {"raters": ["first/0", "second/0"], "agreement": 0.8, "kappa": 0.44}
    category = {"named": 70, "alpha": 0.91, "kappa": None}
    low, high = (None, None) if alpha is None else (0.1, 0.9)
    return {
        **{"documents": 100, "labelled": 60, "unassigned": 20, "disagreed": 15, "unanswered": 5},
        "labels": {"<b>law</b>": 60},
        "reliable_from": 0.667,
        "reliable": None if alpha is None else alpha >= 0.667,
        "agreement": {
            "alpha": {"value": alpha, "low": low, "high": high},
            "pairs": [pair],
            "categories": {"unassigned": category, "<b>law</b>": category},
        },
    }


@pytest.mark.parametrize(
    ("alpha", "cells", "warning"),
    [
        (0.31, ["0.31 (0.10 … 0.90)", "no: below 0.667"], "their alpha is below 0.667"),
        (0.8, ["0.80 (0.10 … 0.90)", "yes"], None),
        (None, ["n/a (n/a … n/a)", "cannot be told"], "their alpha is unknown"),
    ],
)
def test_labels_of_documents_are_told(
    alpha: float | None, cells: list[str], warning: str | None
) -> None:
    total, by_label = annotator_tables.labelling_tables(labelled(alpha))
    assert total.rows[0][:-1] == ["100", "60", "20", "15", "5", *cells]
    assert "κ 0.44" in total.rows[0][-1]
    assert by_label.rows[0] == ["<b>law</b>", "60", "70", "0.91", "n/a"]
    assert by_label.rows[1][:2] == ["unassigned", "0"]
    warned = annotator_tables.warnings({}, labelled(alpha))
    assert [text.partition("reliable: ")[2] for text in warned] == ([warning] if warning else [])
    assert annotator_tables.labelling_tables(None) == []


def test_labels_are_held_against_the_truth(tmp_path: Path) -> None:
    made = fits(tmp_path, 0.0, alpha=None, annotators=0)
    assert annotator_tables.truth_tables(made) == []

    def ratio(count: int, of: int) -> dict[str, int]:
        return {"count": count, "of": of}

    poems = {"recall": ratio(3, 10), "precision": ratio(3, 4), "auroc_median": 0.75}
    rare = {"recall": ratio(0, 1), "precision": ratio(0, 0), "auroc_median": None}
    lexical = {
        "coverage": ratio(4, 11),
        "accuracy": ratio(3, 4),
        "assigned_without_true_category": ratio(1, 50),
        "categories": {"creative_writing": poems, "courtesy": rare},
    }
    files.write_json(tmp_path / "truth.json", {"annotators": {"lexical": lexical}})
    seeds = made["it_simpo"].seeds
    both = {n: seeds[0].model_copy(update={"truth": tmp_path / "truth.json"}) for n in (0, 1)}
    fit = made["it_simpo"].model_copy(update={"seeds": both})
    (table,) = annotator_tables.truth_tables({"it_simpo": fit})
    assert table.rows == [
        ["courtesy", "0 of 2 (0 %)", "0 of 0", "n/a"],
        ["creative writing", "6 of 20 (30 %)", "6 of 8 (75 %)", "0.75 … 0.75"],
    ]
    assert "named 8 of 22 (36 %) that have one, right 6 of 8 (75 %)" in table.caption
