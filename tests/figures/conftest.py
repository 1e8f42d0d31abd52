"""A made-up run with its comparison tables, shared by the tests of figures and report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.comparison.run_folder import CATEGORIES, GAINED, LOST, Run, make_run
from tests.figures.made_changes import VERDICTS, write_changes
from workflow_scripts.common import files
from workflow_scripts.comparison import (
    compare_categories,
    explain_gaps,
    score_recovery,
    vary_decisions,
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run folder with categories, recovery and answer."""
    made = make_run(tmp_path_factory.mktemp("figures"), seeds=(0, 1))
    compared(made)
    write_causes(made)
    write_sweep(made)
    write_witnesses(made)
    return made


def write_witnesses(made: Run) -> None:
    """Write made-up tables of what witnesses say, and of how far weights are apart."""
    rows = [
        (name, witness, 0.2 + 0.3 * n, "yes" if n > 1 else "no")
        for n, name in enumerate(("news", "poems", "advice"))
        for witness in ("likelihood", "distance", "answers")
    ]
    table = pd.DataFrame(rows, columns=["label", "witness", "effect", "stands_out"])
    table = table.assign(comparison="direct", labeller="true", null=0.5)
    table.to_csv(made.root / "witnesses.csv", index=False)
    tensors = pd.DataFrame({"layer": [1, 1, 2, 2, 3, 3], "module": ["mlp.up_proj", "q_proj"] * 3})
    tensors["change"], tensors["relative"] = 0.1 * tensors["layer"], 0.05 * tensors["layer"]
    tensors["effective_rank"], tensors["full_rank"] = 3.0 * tensors["layer"], 64
    tensors.to_csv(made.root / "weights.csv", index=False)


def write_causes(made: Run) -> None:
    """Write made-up tables of what latents cause, and of which come back under other seeds."""
    sets = [
        {"source": "it", "target": "simpo", "set": name, "tokens": part, "latents": 40}
        | {"closed": 0.1 * n, "closed_low": 0.1 * n - 0.05, "closed_high": 0.1 * n + 0.05}
        for n, name in enumerate(("none", "unique", "shared", "random", "all", "error"))
        for part in ("all", "first9", "rest")
    ]
    pd.DataFrame(sets).to_csv(made.root / "cause.csv", index=False)
    taken = [
        {"labeller": "true", "model": model, "category": name, "latents_are": kind}
        | {"specific_rise": 0.05 * n, "low": 0.05 * n - 0.02, "high": 0.05 * n + 0.02}
        for n, name in enumerate(("advice", "news", "safety_refusal"))
        for model in ("it", "simpo")
        for kind in ("unique", "shared")
    ]
    pd.DataFrame(taken).to_csv(made.root / "ablation.csv", index=False)
    told = [
        {"method": method, "size": size, "group": group, "mean_square": 1 + 0.3 * n}
        | {"explained": 0.2 * n + 0.05 * size}
        for n, group in enumerate(("all", "advice", "news"))
        for method, size in (("pca", 1), ("pca", 4), ("sae", 3.2), ("crosscoder", 4.1))
    ]
    pd.DataFrame(told).to_csv(made.root / "difference.csv", index=False)
    rng = np.random.default_rng(0)
    latents = pd.DataFrame({"seed": np.repeat([0, 1, 2], 60), "latent": np.tile(range(60), 3)})
    latents["unique_to"] = rng.choice(["", "it", "simpo"], len(latents))
    latents["recurrence"] = rng.choice([0, 0.5, 1], len(latents))
    latents["recurrence_unique"] = np.minimum(latents["recurrence"], rng.choice([0, 0.5, 1], 180))
    latents["group"] = -1
    files.write_parquet(made.root / "stability.parquet", latents)


def write_sweep(made: Run) -> None:
    """Write the comparison's table with the direct one at a second layer, under another name."""
    table = pd.read_csv(made.root / "comparison/categories.csv", keep_default_na=False)
    deep = table[table["comparison"] == "direct"].assign(comparison="deep")
    pd.concat([table, deep]).to_csv(made.root / "sweep.csv", index=False)


def write_scores(made: Run) -> Path:
    """Write a leaderboard: each model is better at what it was taught."""
    scores = [
        (name, model, 0.5 + 0.2 * (name in taught) + 0.01 * (number + len(model)) % 0.03)
        for number, name in enumerate(CATEGORIES)
        for model, taught in (("it", LOST), ("simpo", GAINED))
    ]
    path = made.root / "leaderboard.csv"
    pd.DataFrame(scores, columns=["category", "model", "score"]).to_csv(path, index=False)
    return path


def compared(made: Run, verdicts: Mapping[str, str] = VERDICTS) -> None:
    """Write the comparison's tables of a run folder."""
    folder = made.root / "comparison"
    assert compare_categories.main(made.compare_flags(folder / "categories.csv")) == 0
    assert vary_decisions.main(made.compare_flags(folder / "sensitivity.csv")) == 0
    write_changes(made, verdicts)
    answer = (folder / "answer.json").read_bytes()
    flags = made.recovery_flags(folder / "recovery.csv", folder / "answer.json")
    assert score_recovery.main([*flags, f"--planted={made.planted}"]) == 0
    (folder / "answer.json").write_bytes(answer)
    flags = ["--changes", str(folder / "changes.csv"), "--output", str(folder / "gaps.csv")]
    assert explain_gaps.main([*flags, "--leaderboard", str(write_scores(made))]) == 0
