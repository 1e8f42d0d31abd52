"""Any name is a name: no word that the workflow uses itself makes rules or files ambiguous."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.run.test_settings import Raw, put, smoke
from tests.workflow import running

WORDS = (
    *("tokens", "documents", "logs", "models", "model", "shard000", "layer1", "layer3"),
    *("difference", "cause", "consensus", "seed0", "seed0_carriers", "x_seed0", "matches"),
    *("explain", "classify", "score", "lexical", "llm", "explanations", "labels", "scores"),
    *("none", "nan", "null", "true", "0", "1e5", "n", "plan", "results", "figures", "crosscoder"),
    *("autointerp", "comparison", "activations", "normalizers", "ablation", "recovery"),
    *("stability", "report", "provenance", "baseline", "candidate", "other", "random", "unique"),
)
"""Parts of the paths, rules, wildcards, columns and values of a run."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree without results."""
    return running.copy_tree(tmp_path_factory.mktemp("names"))


def named(shift: int) -> Raw:
    """Return the smoke run with all words as names of each kind, shifted against each other."""
    words = [WORDS[(i + shift) % len(WORDS)] for i in range(len(WORDS))]
    other = words[::-1]
    raw = put(smoke(), "models", {word: {"organism": {"teach": {"advice": 50}}} for word in words})
    raw = put(raw, "organism.architecture.layers", len(words))
    sources = smoke()["text"]["sources"]["generated"]  # type: ignore[index]
    raw = put(raw, "text.sources", dict.fromkeys(other, sources))
    annotators = {word: {"model": "m"} for word in words if word not in ("lexical", "llm", "true")}
    llm = {"base_url": "http://127.0.0.1:9/v1", "annotators": annotators}
    raw = put(raw, "autointerp", {"annotator": "llm", "llm": llm})
    groups = [*other[5:], *other[:5]]
    raw = put(raw, "layers", {word: [i + 1] for i, word in enumerate(groups)})
    fits = {
        fit: {"models": [words[i], words[i - 1]], "layer": i + 1} for i, fit in enumerate(other)
    }
    raw = put(raw, "fits", fits)
    comparisons = {
        name: {
            "baseline": {"fit": fit, "model": fits[fit]["models"][0]},  # type: ignore[index]
            "candidate": {"fit": fit, "model": fits[fit]["models"][1]},  # type: ignore[index]
        }
        for name, fit in zip(words, other, strict=True)
        if not re.fullmatch("seed[0-9]+|consensus", name)
    }
    return put(raw, "comparisons", comparisons)


@pytest.mark.parametrize("shift", [0, 11])
def test_any_word_names_anything(tree: Path, shift: int) -> None:
    (tree / "names.yaml").write_text(yaml.safe_dump(named(shift)), encoding="utf-8")
    printed = running.snakemake(tree, "-n", "--quiet", "--configfile", "names.yaml")
    assert "Ambiguous" not in printed
