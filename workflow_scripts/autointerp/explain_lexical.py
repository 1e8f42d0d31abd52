"""Explain, categorise and score latents without any LLM.

Every row says `annotator_kind: lexical` and `llm_used: false`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.autointerp.annotation_tables import OK, TABLES, gate_labels, write_tables
from workflow_scripts.autointerp.detection import permuted_passes, share
from workflow_scripts.autointerp.latent_tables import LatentTable, read_table
from workflow_scripts.autointerp.lexical.annotate import annotate
from workflow_scripts.autointerp.lexical.held_out_scores import PERMUTATIONS
from workflow_scripts.autointerp.score_statistics import Gate
from workflow_scripts.autointerp.settings import CategoryRule, GateMargin
from workflow_scripts.autointerp.windows import read_windows
from workflow_scripts.common import cli, files
from workflow_scripts.common.labellers import LEXICAL
from workflow_scripts.common.progress import track
from workflow_scripts.common.taxonomy import UNASSIGNED, Taxonomy, load_taxonomy

BACKGROUND = 4000
"""Background windows used at most."""
MEDIANS = ("auroc_hard", "token_precision", "token_recall", "token_f1", "simulation_r")
"""Scores whose medians stand in the summary."""
BATCH = 500
"""Latents at once, which bounds memory; explanations are permuted within a batch."""
NEEDED = ("latent", "part", "kind", "stratum", "document", "pieces", "activations")


def explain_lexical(
    contexts: Path,
    latents: Path,
    background: Path,
    taxonomy: Path,
    rule: CategoryRule,
    margin: GateMargin,
    seed: int,
    output: Path,
) -> None:
    """Write the lexical annotator's explanations, labels and scores, and a summary.

    Parameters
    ----------
    contexts
        contexts of the latents (Parquet)
    latents
        status of each latent (Parquet)
    background
        random windows, for the terms' usual frequency (Parquet)
    taxonomy
        categories with their lexicons (YAML)
    seed
        seed of the permuted explanations
    output
        folder of the tables to write

    Raises
    ------
    UserError
        If an input is missing or the taxonomy is not valid.
    """
    cli.log("lexical annotator: no LLM is used")
    categories, gate = load_taxonomy(taxonomy), Gate(margin.gate_margin)
    status = files.read_parquet(latents)
    table = LatentTable(contexts, NEEDED, ("template", "role"))
    reference = read_windows(read_table(background, ("pieces",)).slice(0, BACKGROUND))
    usable = status.loc[status["status"] == OK, "latent"].to_numpy()
    rows, nulls = [], [np.zeros((0, PERMUTATIONS))]
    batches = -(-len(usable) // BATCH)
    for part in track(table.batches(usable, BATCH), "batches", batches):
        annotated, permuted = annotate(part, reference, categories, rule, seed)
        rows.append(annotated)
        nulls.append(permuted)
    null = np.concatenate(nulls)
    frame = pd.concat([*rows, _missing(status[status["status"] != OK])], ignore_index=True)
    auroc, low = (frame[name].to_numpy(np.float64) for name in ("auroc", "auroc_low"))
    frame = gate_labels(frame, gate.passes(auroc, low, null), categories)
    frame = frame.assign(annotator=LEXICAL, annotator_kind=LEXICAL, llm_used=False, replicate=0)
    write_tables(output, dict.fromkeys(TABLES, frame))
    files.write_json(output / "summary.json", _summary(frame, categories, gate, null))
    cli.log(f"lexical annotator: {len(frame)} latents done, no LLM was used")


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
        "annotator": LEXICAL,
        "annotator_kind": LEXICAL,
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


main = cli.command(explain_lexical)


if __name__ == "__main__":
    raise SystemExit(main())
