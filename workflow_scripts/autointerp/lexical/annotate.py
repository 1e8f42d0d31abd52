"""Explain, categorise and score a batch of latents without an LLM.

Shapes: L latents, W windows (the first ones background), R permutations.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from workflow_scripts.autointerp.annotation_tables import OK
from workflow_scripts.autointerp.context_schema import HARD, POSITIVE, TRAIN
from workflow_scripts.autointerp.lexical import lexicon
from workflow_scripts.autointerp.lexical.categorise import (
    CategoryScores,
    latent_evidence,
    score_categories,
)
from workflow_scripts.autointerp.lexical.held_out_scores import HeldOutScores, score_held_out
from workflow_scripts.autointerp.lexical.terms import FOLDS, Design, LexicalResult, explain, render
from workflow_scripts.autointerp.lexical.token_scores import TokenScores, score_tokens
from workflow_scripts.autointerp.score_statistics import auroc_interval
from workflow_scripts.autointerp.settings import CategoryRule
from workflow_scripts.autointerp.windows import (
    TokenWindows,
    join_windows,
    largest_by_window,
    merge_words,
    read_windows,
)
from workflow_scripts.common.taxonomy import UNASSIGNED, Taxonomy


def annotate(
    contexts: pa.Table, background: TokenWindows, taxonomy: Taxonomy, rule: CategoryRule, seed: int
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return a row per latent and the AUROC of permuted explanations [L, R].

    The rows have the columns of all three tables but those that the gate decides.
    """
    latents = np.unique(contexts["latent"].to_numpy())
    windows = join_windows(background, read_windows(contexts))
    words = merge_words(windows)
    design = _design(contexts, latents, len(background))
    result = explain(words, design, len(background))
    learned = design.positive & design.train
    matches = lexicon.match(windows, words, taxonomy, learned | (design.latent < 0))
    evidence = lexicon.window_evidence(matches, len(taxonomy.categories), len(background))
    peak = largest_by_window(windows.window_of_token, windows.activation, len(windows))
    whole = latent_evidence(words, design, result, taxonomy)
    categories = score_categories(evidence, peak, design, whole, rule)
    scores = score_held_out(design, result, [seed, int(latents[0])])
    table = pd.DataFrame(
        {
            "latent": latents,
            "status": OK,
            **_explanations(result),
            **_labels(categories, taxonomy),
            **_scores(scores, score_tokens(windows, words, design, result)),
        }
    )
    return table, scores.null


def _design(contexts: pa.Table, latents: NDArray[np.int64], background: int) -> Design:
    frame = contexts.select(["latent", "part", "kind", "stratum", "document"]).to_pandas()
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


def _explanations(result: LexicalResult) -> dict[str, list[str]]:
    pairs = list(zip(result.channel, result.terms, strict=True))
    return {
        "explanation": [render(channel, terms) for channel, terms in pairs],
        "terms": [
            json.dumps({"channel": channel, "terms": [asdict(term) for term in terms]})
            for channel, terms in pairs
        ],
    }


def _labels(categories: CategoryScores, taxonomy: Taxonomy) -> dict[str, object]:
    pairs = zip(categories.best, categories.clear, strict=True)
    return {
        "category_ungated": [taxonomy.ids[i] if clear else UNASSIGNED for i, clear in pairs],
        "score": categories.score,
        "margin": categories.margin,
    }


def _scores(scores: HeldOutScores, tokens: TokenScores) -> dict[str, object]:
    low, high = auroc_interval(scores.auroc, scores.positives, scores.negatives)
    return {
        "balanced_accuracy": scores.balanced_accuracy,
        "balanced_accuracy_low": scores.balanced_accuracy_low,
        "balanced_accuracy_high": scores.balanced_accuracy_high,
        "auroc": scores.auroc,
        "auroc_low": low,
        "auroc_high": high,
        "auroc_random": scores.auroc_random,
        "auroc_hard": scores.auroc_hard,
        **{f"auroc_{name}": auroc for name, auroc in scores.auroc_by_stratum.items()},
        "null_auroc": scores.null.mean(axis=1),
        "token_precision": tokens.precision,
        "token_recall": tokens.recall,
        "token_f1": tokens.f1,
        "simulation_r": tokens.simulation,
        "positives": scores.positives,
        "negatives": scores.negatives,
    }
