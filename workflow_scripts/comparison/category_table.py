"""The table of categories: evidence of latents, q values over families of tests, seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, statistics
from workflow_scripts.comparison.evidence import LEVELS, evidence_rows, gather
from workflow_scripts.comparison.pairs import ComparedPair
from workflow_scripts.comparison.settings import CategoryTest

COLUMNS = (
    "comparison",
    "kind",
    "baseline",
    "candidate",
    "seed",
    "labeller",
    "level",
    "name",
    "class",
    "tested",
    "n_baseline",
    "N_baseline",
    "n_candidate",
    "N_candidate",
    "share_baseline",
    "share_candidate",
    "percent_change",
    "low",
    "high",
    "p",
    "q",
    "count_sign",
    "detectable_down",
    "detectable_up",
    "labelled",
    "live",
    "unique",
    "unique_share",
    "unique_share_low",
    "unique_share_high",
    "reference_live",
    "reference_share",
    "detection_p",
    "detection_q",
    "detectable_share",
    "placebo_live",
    "placebo_unique",
    "placebo_share",
    "placebo_p",
    "placebo_change",
    "delta_norm",
    "delta_norm_low",
    "delta_norm_high",
    "anchored_change",
    "anchored_change_low",
    "anchored_change_high",
    "anchored_sign",
    "called",
    "seeds",
    "seed_effect",
    "seed_low",
    "seed_high",
    "robust",
)
"""Columns of ``categories.csv``; ``COLUMNS.md`` says what each means."""


def category_table(
    pairs: Sequence[ComparedPair],
    class_of: Callable[[str], str],
    test: CategoryTest,
) -> pd.DataFrame:
    """Return the table of all comparisons."""
    cells = {
        (pair.name, pair.place, labeller, level): gather(pair, labeller, level, test)
        for pair in pairs
        for labeller in pair.labellers
        for level in LEVELS
    }
    blocks = [
        pd.DataFrame(list(evidence_rows(pair, labeller, level, cells, class_of)))
        for pair in pairs
        for labeller in pair.labellers
        for level in LEVELS
    ]
    blocks = [_judge(block, test) for block in blocks if len(block)]
    if not blocks:
        raise cli.UserError("no comparison has labelled latents: check `comparisons` and `fits`")
    return add_seed_intervals(pd.concat(blocks, ignore_index=True), test)[list(COLUMNS)]


def _judge(block: pd.DataFrame, test: CategoryTest) -> pd.DataFrame:
    """Add q values to the rows of one family of tests, and whether its own one calls a row."""
    tested = block["tested"].to_numpy(dtype=bool)
    direct = (block["kind"] == "direct").to_numpy()
    enough = block["labelled"].to_numpy() >= test.least_latents
    block = block.assign(
        q=statistics.adjust(block["p"].where(tested)),
        detection_q=statistics.adjust(block["detection_p"].where(tested & enough)),
    )
    q = block["detection_q"].where(direct, block["q"])
    return block.assign(called=np.where(q <= test.fdr, "yes", np.where(q.notna(), "no", "")))


def add_seed_intervals(table: pd.DataFrame, test: CategoryTest) -> pd.DataFrame:
    """Add, per name, mean and Student's t interval over seeds, and whether the change is robust.

    Over seeds the anchored change is averaged as a logarithm of the ratio (with ½ added to each
    count, so that a zero counts too), the direct share as its distance from the reference.
    ``robust``: the count-level test calls it and the seed-level interval excludes no change.
    """
    keys = ["comparison", "labeller", "level", "name"]
    ratio = ((table["n_candidate"] + 0.5) / (table["N_candidate"] + 0.5)) / (
        (table["n_baseline"] + 0.5) / (table["N_baseline"] + 0.5)
    )
    excess = table["unique_share"] - table["reference_share"]
    direct = table["kind"] == "direct"
    effect = pd.Series(np.where(direct, excess, np.log(ratio)), index=table.index)
    seed_means = {}
    for key, group in effect.groupby([table[k] for k in keys], sort=False):
        seed_means[key] = (len(group), statistics.mean_interval(group, test.confidence))
    intervals = [seed_means[key] for key in table[keys].itertuples(index=False, name=None)]
    robust = [
        "n/a" if count < 2 else ("yes" if called == "yes" and interval.excludes(0.0) else "no")
        for called, (count, interval) in zip(table["called"], intervals, strict=True)
    ]
    return table.assign(
        seeds=[count for count, _ in intervals],
        seed_effect=[interval.estimate for _, interval in intervals],
        seed_low=[interval.low for _, interval in intervals],
        seed_high=[interval.high for _, interval in intervals],
        robust=robust,
    )
