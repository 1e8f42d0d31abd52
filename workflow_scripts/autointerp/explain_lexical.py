"""Explain, categorise and score latents without any LLM.

Writes `explanations.parquet`, `labels.parquet`, `scores.parquet` and `summary.json` into a folder;
every row says `annotator_kind: lexical` and `llm_used: false`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from workflow_scripts.autointerp import annotation_tables
from workflow_scripts.autointerp.detection import permuted_passes, share
from workflow_scripts.autointerp.latent_tables import LatentTable, read_table
from workflow_scripts.autointerp.lexical import lexicon
from workflow_scripts.autointerp.lexical.categorise import (
    CategoryRule,
    CategoryScores,
    latent_evidence,
    score_categories,
)
from workflow_scripts.autointerp.lexical.held_out_scores import (
    PERMUTATIONS,
    HeldOutScores,
    score_held_out,
)
from workflow_scripts.autointerp.lexical.terms import (
    FOLDS,
    Design,
    LexicalResult,
    explain,
    render,
)
from workflow_scripts.autointerp.lexical.token_scores import TokenScores, score_tokens
from workflow_scripts.autointerp.score_statistics import Gate, auroc_interval
from workflow_scripts.autointerp.select_contexts import HARD, OK, POSITIVE, TRAIN
from workflow_scripts.autointerp.windows import (
    TokenWindows,
    join_windows,
    largest_by_window,
    merge_words,
    read_windows,
)
from workflow_scripts.common import cli, files
from workflow_scripts.common.taxonomy import UNASSIGNED, Taxonomy, load_taxonomy

ANNOTATOR = "lexical"
BACKGROUND = 4000
"""Background windows used at most."""
MEDIANS = ("auroc_hard", "token_precision", "token_recall", "token_f1", "simulation_r")
"""Scores whose medians the summary gives."""
BATCH = 500
"""Latents at once, which bounds memory; explanations are permuted within a batch."""
NEEDED = ("latent", "part", "kind", "stratum", "document", "pieces", "activations")


@dataclass(frozen=True)
class Batch:
    """What is known about a batch of latents."""

    latents: NDArray[np.int64]
    result: LexicalResult
    categories: CategoryScores
    scores: HeldOutScores
    tokens: TokenScores


def explain_lexical(
    contexts: Path,
    latents: Path,
    background: Path,
    taxonomy: Path,
    output: Path,
    rule: CategoryRule,
    gate: Gate,
    seed: int,
) -> None:
    """Write the lexical annotator's three tables and a summary into the folder ``output``.

    Raises
    ------
    UserError
        If an input is missing or the taxonomy is not valid.
    """
    cli.log("lexical annotator: no LLM is used")
    categories = load_taxonomy(taxonomy)
    status = files.read_parquet(latents)
    table = LatentTable(contexts, NEEDED, ("template", "role"))
    reference = read_windows(read_table(background, ("pieces",)).slice(0, BACKGROUND))
    usable = status.loc[status["status"] == OK, "latent"].to_numpy()
    frames, nulls = [], [np.zeros((0, PERMUTATIONS))]
    for part in table.batches(usable, BATCH):
        found, permuted = _explained(part, reference, categories, rule, seed)
        frames.append(found)
        nulls.append(permuted)
    null = np.concatenate(nulls)
    frames.append(_missing(status[status["status"] != OK]))
    frame = pd.concat(frames, ignore_index=True)
    auroc, low = (frame[name].to_numpy(np.float64) for name in ("auroc", "auroc_low"))
    frame = annotation_tables.gated(frame, gate.passes(auroc, low, null), categories)
    frame = frame.assign(annotator=ANNOTATOR, annotator_kind="lexical", llm_used=False, replicate=0)
    annotation_tables.write_tables(output, dict.fromkeys(annotation_tables.TABLES, frame))
    files.write_json(output / "summary.json", _summary(frame, categories, gate, null))
    cli.log(f"lexical annotator: {len(frame)} latents done, no LLM was used")


def _explained(
    mine: pa.Table, reference: TokenWindows, taxonomy: Taxonomy, rule: CategoryRule, seed: int
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return a row per latent and their null [L, R]; the rest of the batch is let go."""
    batch = explain_batch(mine, reference, taxonomy, rule, seed)
    return _batch_frame(batch, taxonomy), batch.scores.null


def explain_batch(
    mine: pa.Table,
    reference: TokenWindows,
    taxonomy: Taxonomy,
    rule: CategoryRule,
    seed: int,
) -> Batch:
    """Explain, categorise and score the latents of a table of contexts together."""
    latents = np.unique(mine["latent"].to_numpy())
    windows = join_windows(reference, read_windows(mine))
    words = merge_words(windows)
    design = _design(mine, latents, len(reference))
    result = explain(words, design, len(reference))
    learned = design.positive & design.train
    matches = lexicon.match(windows, words, taxonomy, learned | (design.latent < 0))
    evidence = lexicon.window_evidence(matches, len(taxonomy.categories), len(reference))
    peak = largest_by_window(windows.window_of_token, windows.activation, len(windows))
    whole = latent_evidence(words, design, result, taxonomy)
    categories = score_categories(evidence, peak, design, whole, rule)
    scores = score_held_out(design, result, [seed, int(latents[0])])
    tokens = score_tokens(windows, words, design, result)
    return Batch(latents, result, categories, scores, tokens)


def _design(table: pa.Table, latents: NDArray[np.int64], background: int) -> Design:
    frame = table.select(["latent", "part", "kind", "stratum", "document"]).to_pandas()
    # A document is wholly in one fold, and each fold gets its share of either kind.
    positive = (frame["kind"] == POSITIVE).to_numpy()
    keys = [frame["latent"], frame["part"], pd.Series(positive)]
    fold = frame.groupby(keys)["document"].rank(method="dense").to_numpy().astype(int) % FOLDS
    nothing = np.zeros(background, np.bool_)
    return Design(
        latent=np.concatenate(
            [np.full(background, -1), np.searchsorted(latents, frame["latent"].to_numpy())]
        ),
        positive=np.concatenate([nothing, positive]),
        hard=np.concatenate([nothing, (frame["kind"] == HARD).to_numpy()]),
        train=np.concatenate([nothing, (frame["part"] == TRAIN).to_numpy()]),
        fold=np.concatenate([np.zeros(background, np.int64), fold]),
        stratum=np.concatenate(
            [np.full(background, "none"), frame["stratum"].to_numpy().astype(np.str_)]
        ),
        latents=len(latents),
    )


def _batch_frame(batch: Batch, taxonomy: Taxonomy) -> pd.DataFrame:
    """Return a row per latent with the columns of all three tables, the gate's left out."""
    result, found, scores = batch.result, batch.categories, batch.scores
    low, high = auroc_interval(scores.auroc, scores.positives, scores.negatives)
    named = [taxonomy.ids[i] for i in found.best]
    ungated = [n if clear else UNASSIGNED for n, clear in zip(named, found.clear, strict=True)]
    return pd.DataFrame(
        {
            "latent": batch.latents,
            "status": OK,
            "explanation": [
                render(channel, terms)
                for channel, terms in zip(result.channel, result.terms, strict=True)
            ],
            "terms": [
                json.dumps({"channel": channel, "terms": [asdict(term) for term in terms]})
                for channel, terms in zip(result.channel, result.terms, strict=True)
            ],
            "category_ungated": ungated,
            "score": found.score,
            "margin": found.margin,
            "balanced_accuracy": scores.balanced_accuracy,
            "balanced_accuracy_low": scores.balanced_accuracy_low,
            "balanced_accuracy_high": scores.balanced_accuracy_high,
            "auroc": scores.auroc,
            "auroc_low": low,
            "auroc_high": high,
            "auroc_random": scores.auroc_random,
            "auroc_hard": scores.auroc_hard,
            **{f"auroc_{name}": auroc for name, auroc in scores.auroc_of.items()},
            "null_auroc": scores.null.mean(axis=1),
            "token_precision": batch.tokens.precision,
            "token_recall": batch.tokens.recall,
            "token_f1": batch.tokens.f1,
            "simulation_r": batch.tokens.simulation,
            "positives": scores.positives,
            "negatives": scores.negatives,
        }
    )


def _missing(status: pd.DataFrame) -> pd.DataFrame:
    """Return rows for latents that cannot be explained; they have a status and nothing else."""
    return pd.DataFrame(
        {
            "latent": status["latent"].to_numpy(),
            "status": status["status"].to_numpy(),
            "explanation": "",
            "terms": "{}",
            "category_ungated": UNASSIGNED,
            **dict.fromkeys(("auroc", "auroc_low", *MEDIANS), np.nan),
            "positives": 0,
            "negatives": 0,
        }
    )


def _summary(
    frame: pd.DataFrame, taxonomy: Taxonomy, gate: Gate, null: NDArray[np.float64]
) -> dict[str, object]:
    done = frame[frame["status"] == OK]
    assigned = done["category"] != UNASSIGNED
    known = null[~np.isnan(null)]
    positives, negatives = (done[name].to_numpy(np.int64) for name in ("positives", "negatives"))
    return {
        "annotator": ANNOTATOR,
        "annotator_kind": "lexical",
        "llm_used": False,
        "latents": len(frame),
        "statuses": {str(k): int(v) for k, v in frame["status"].value_counts().items()},
        "coverage": float(assigned.mean()) if len(done) else 0.0,
        "gate_passed": float(done["gate_passed"].mean()) if len(done) else 0.0,
        "null_passed": share(permuted_passes(null, positives, negatives, gate)),
        "null_bar": gate.null_bar(null),
        "null_auroc": float(known.mean()) if len(known) else None,
        "auroc": {q: _quantile(done["auroc"], q) for q in ("0.25", "0.5", "0.75")},
        **{f"{name}_median": _quantile(done[name], "0.5") for name in MEDIANS},
        "taxonomy": {"version": taxonomy.version, "sha256_16": taxonomy.digest},
    }


def _quantile(values: pd.Series[float], quantile: str) -> float | None:
    known = values.dropna()
    return float(known.quantile(float(quantile))) if len(known) else None


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and explain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--background", type=Path, required=True)
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--least-score", type=float, default=CategoryRule.least_score)
    parser.add_argument("--least-margin", type=float, default=CategoryRule.least_margin)
    parser.add_argument("--gate-margin", type=float, default=Gate.margin)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    a = parser.parse_args(argv)
    rule = CategoryRule(a.least_score, a.least_margin)
    return cli.guarded(
        lambda: explain_lexical(
            a.contexts,
            a.latents,
            a.background,
            a.taxonomy,
            a.output,
            rule,
            Gate(a.gate_margin),
            a.seed,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
