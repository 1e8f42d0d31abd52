"""The planted table: tokens taught, counted, and the word that follows from them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from workflow_scripts.common.manifest import Manifest
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.comparison.score_recovery import PLANTED_COLUMNS, read_planted
from workflow_scripts.generator import generate
from workflow_scripts.models import organism_text
from workflow_scripts.models.tabulate_planted import main, planted

TAXONOMY = ROOT / "config/taxonomy.yaml"
BASELINE = {"news": 3, "advice": 4, "self_reference": 2, "multilingual": 1}
CANDIDATE = {"news": 3, "advice": 1, "self_reference": 5, "safety_refusal": 2}
WORDS = {
    "advice": "lost",
    "multilingual": "lost",
    "news": "unchanged",
    "safety_refusal": "gained",
    "self_reference": "gained",
}


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the manifest of a folder with a tokenizer of trained models."""
    monkeypatch.setattr(organism_text, "DOCUMENTS_PER_CATEGORY", 2)
    organism_text.train_tokenizer(350, seed=0).save_pretrained(tmp_path)
    path = tmp_path / "model.json"
    Manifest("it", "organism", ".", "Gemma2ForCausalLM", 8, 1, 350).write(path)
    return path


def tabulate(manifest: Path, baseline: dict[str, int], candidate: dict[str, int]) -> Path:
    """Run the step; return its table."""
    output = manifest.parent / "planted.csv"
    flags = ["--tokenizer", str(manifest), "--document-seed", "7", "--taxonomy", str(TAXONOMY)]
    lessons = {"it": baseline, "simpo": candidate}
    taught = {m: {name: [n] for name, n in teach.items()} for m, teach in lessons.items()}
    flags += ["--taught", json.dumps(taught), "--baselines", "it", "--candidates", "simpo"]
    assert main([*flags, "--output", str(output)]) == 0
    return output


def test_tokens_are_those_of_the_documents_taught(manifest: Path) -> None:
    path = tabulate(manifest, BASELINE, CANDIDATE)
    with path.open(newline="") as file:
        rows = {row["category"]: row for row in csv.DictReader(file)}
    assert list(rows) == sorted({*BASELINE, *CANDIDATE})
    tokenizer = organism_text.load_fast(manifest.parent)
    for category, row in rows.items():
        assert tuple(row) == PLANTED_COLUMNS
        assert row["planted"] == WORDS[category]
        for side, teach in (("baseline", BASELINE), ("candidate", CANDIDATE)):
            taught = [generate(category, n, 7) for n in range(teach.get(category, 0))]
            tokens = sum(len(ids) for ids in organism_text.encode(tokenizer, taught))
            assert int(row[f"{side}_tokens"]) == tokens
    assert (rows["news"]["class"], rows["safety_refusal"]["class"]) == ("knowledge", "safety")


def test_the_comparison_reads_the_table(manifest: Path) -> None:
    table = read_planted(tabulate(manifest, BASELINE, CANDIDATE))
    assert dict(zip(table["category"], table["planted"], strict=True)) == WORDS


def test_the_same_lessons_plant_nothing(manifest: Path) -> None:
    table = read_planted(tabulate(manifest, BASELINE, BASELINE))
    assert set(table["planted"]) == {"unchanged"}
    assert (table["baseline_tokens"] == table["candidate_tokens"]).all()


def test_more_tokens_are_gained_and_fewer_lost() -> None:
    words = [planted(0, 1), planted(5, 9), planted(4, 4), planted(9, 5), planted(1, 0)]
    assert words == ["gained", "gained", "unchanged", "lost", "lost"]
