"""Apply the decision rule: which live latents are unique to one model.

A latent is unique to its own model, against another, when all of these hold:

1. its status is ``ok`` (enough documents, β^own well defined, no flipped sign);
2. ν^r and ν^ε lie below their bounds [Minder et al. 2025] and above the lower one;
3. the test of "ν^r ≥ bound or ν^ε ≥ bound" passes at the false discovery rate;
4. optionally, Δnorm lies on the own model's side of a bound.

``unique_to`` names the model against which all other models of the fit fail; both of two that hold
the latent in directions of their own (``it+simpo``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from workflow_scripts.common import cli, files
from workflow_scripts.latents.ownership import own_norm_share, owned_by, owners
from workflow_scripts.latents.settings import Selection


def decide(table: pd.DataFrame, models: Sequence[str], rule: Selection) -> pd.DataFrame:
    """Return one row per live latent: a boolean per ordered pair, and ``unique_to``."""
    live = table[table["live"]]
    selection = pd.DataFrame({"latent": live["latent"].to_numpy()})
    for own, other in permutations(models, 2):
        passed = np.logical_and.reduce(
            [mask for _, mask in clauses(live, own, other, models, rule)]
        )
        selection[f"unique_{own}_vs_{other}"] = passed
    selection.insert(1, "unique_to", owners(selection, models))
    return selection


def clauses(
    live: pd.DataFrame, own: str, other: str, models: Sequence[str], rule: Selection
) -> list[tuple[str, Bool[np.ndarray, " latents"]]]:
    """Return the rule's clauses in order: name, and which live latents satisfy it."""
    pair = f"{own}_vs_{other}"
    result = [
        ("status", (live[f"status_{pair}"] == "ok").to_numpy()),
        ("nu_r", (live[f"nu_r_{pair}"] < rule.nu_r).to_numpy()),
        ("nu_e", (live[f"nu_e_{pair}"] < rule.nu_e).to_numpy()),
        ("fdr", (live[f"q_{pair}"] <= rule.fdr).to_numpy()),
    ]
    if rule.delta_norm is not None:
        result.append(("delta_norm", own_norm_share(live, own, other, models) >= rule.delta_norm))
    return result


def count_clauses(
    table: pd.DataFrame, models: Sequence[str], rule: Selection
) -> dict[str, dict[str, int]]:
    """Return, for each ordered pair, how many live latents are left after each clause."""
    live = table[table["live"]]
    counts: dict[str, dict[str, int]] = {}
    for own, other in permutations(models, 2):
        left = np.ones(len(live), dtype=bool)
        steps = {"live": len(live)}
        for name, mask in clauses(live, own, other, models, rule):
            left &= mask
            steps[name] = int(left.sum())
        counts[f"{own}_vs_{other}"] = steps
    return counts


def select_latents(
    latents: Path, models: list[str], rule: Selection, selection: Path, summary: Path
) -> None:
    """Write which live latents are unique to one model, and how many each clause leaves.

    Parameters
    ----------
    latents
        scores of the latents (Parquet)
    models
        models of the crosscoder, in its order
    selection
        table to write, a row per live latent (Parquet)
    summary
        counts to write (JSON)
    """
    table = files.read_parquet(latents)
    chosen = decide(table, models, rule)
    files.write_parquet(selection, chosen)
    files.write_json(
        summary,
        {
            "rule": rule.model_dump(),
            "left_after": count_clauses(table, models, rule),
            "unique_to": {m: int(owned_by(chosen["unique_to"], m).sum()) for m in models},
            "live": len(chosen),
            "latents": len(table),
        },
    )


main = cli.command(select_latents)


if __name__ == "__main__":
    raise SystemExit(main())
