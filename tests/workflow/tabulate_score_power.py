"""How many planted changes are called as fewer documents are scored: half, a quarter, a tenth.

``python -m tests.workflow.tabulate_score_power results/recovery`` (part of ``make validate``)
scores the first seed's crosscoder of the planted pair again on part of the score split's documents
and prints a line per share. It leaves ``score_power.csv``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import files
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import compare_categories, score_recovery
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.score_latents import latent_scores
from workflow_scripts.latents.select_latents import decide
from workflow_scripts.latents.settings import Scoring, Selection
from workflow_scripts.latents.token_context import TokenContext, read_context

SHARES = (1.0, 0.5, 0.25, 0.1)
FIT, MODELS, LAYER = "it_simpo", ("it", "simpo"), 3


class Part(ActivationStore):
    """A store of which only some documents are read."""

    context: TokenContext
    share = 1.0

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the usable tokens of the first part of a split's documents."""
        rows = super().rows(split)
        documents = self.context.row_of(rows)
        known = np.unique(documents)
        last = known[max(1, round(self.share * len(known))) - 1]
        kept: NDArray[np.int64] = rows[documents <= last]
        return kept


def opened(results: Path) -> Part:
    """Open the activations of the planted pair."""
    folders = {m: results / "activations" / m / f"layer{LAYER}" for m in MODELS}
    shards = {m: sorted(folder.glob("shard*.h5")) for m, folder in folders.items()}
    return Part(shards, LAYER, {m: folder / "normalizer.h5" for m, folder in folders.items()})


def calls(
    results: Path, latents: pd.DataFrame, settings: dict[str, object], folder: Path
) -> tuple[int, int, int]:
    """Return planted changes called, with the right sign, and unchanged categories called."""
    rule = settings["latents"]
    assert isinstance(rule, dict)
    decided = decide(
        latents, MODELS, Selection(nu_r=rule["nu_r"], nu_e=rule["nu_e"], fdr=rule["fdr"])
    )
    files.write_parquet(folder / "latents.parquet", latents)
    files.write_parquet(folder / "selection.parquet", decided)
    paths = {name: str(folder / f"{name}.parquet") for name in ("latents", "selection")}
    fits = {FIT: {"models": MODELS, "seeds": {"0": paths}}}
    sides = {
        side: {"fit": FIT, "model": model}
        for side, model in zip(("baseline", "candidate"), MODELS, strict=True)
    }
    tested = settings["comparison"]
    assert isinstance(tested, dict)
    flags = ["--fits", json.dumps(fits), "--comparisons", json.dumps({"direct": sides})]
    flags += ["--losses", str(results / "comparison" / "losses.parquet")]
    flags += ["--labels", str(results / "dataset" / "labels.parquet")]
    flags += ["--taxonomy", "config/taxonomy.yaml", "--margin", str(tested["margin"])]
    assert compare_categories.main([*flags, "--output", str(folder / "categories.csv")]) == 0
    flags = ["--categories", str(folder / "categories.csv")]
    flags += ["--planted", str(results / "models" / "planted.csv")]
    flags += ["--recovery", str(folder / "recovery.csv"), "--answer", str(folder / "answer.json")]
    assert score_recovery.main(flags) == 0
    table = read_csv(folder / "recovery.csv")
    verdicts = table[table["statistic"] == "verdict"]
    planted = verdicts["planted"] != "unchanged"
    called = verdicts["called"].astype(bool)
    right = verdicts["sign_right"] == "yes"
    return (
        int((called & planted).sum()),
        int((right & planted).sum()),
        int((called & ~planted).sum()),
    )


def tabulate(results: Path) -> pd.DataFrame:
    """Return a row per share of the score split's documents."""
    settings = json.loads((results / "provenance.json").read_text(encoding="utf-8"))["settings"]
    rule = settings["latents"]
    scoring = Scoring(**{name: rule[name] for name in Scoring.model_fields})
    crosscoder = Crosscoder.load(results / "crosscoder" / FIT / "seed0")
    store = opened(results)
    tokens = sorted((results / "dataset" / "tokens").glob("shard*.h5"))
    store.context = read_context(tokens)
    rows = []
    for share in SHARES:
        store.share = share
        with TemporaryDirectory() as folder, torch.no_grad():
            table = latent_scores(store, crosscoder, store.context, scoring)
            found, right, false = calls(results, table, settings, Path(folder))
            tested = int((table["status_it_vs_simpo"] == "ok").sum())
        rows.append((share, len(store.rows("score")), tested, found, right, false))
        print(*rows[-1], flush=True)
    columns = ["share", "tokens", "latents_tested", "called", "signs_right", "unchanged_called"]
    return pd.DataFrame(rows, columns=columns)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    results = parser.parse_args(argv).results
    tabulate(results).to_csv(results / "score_power.csv", index=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
