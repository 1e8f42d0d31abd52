"""The table of categories: evidence, q values over families of tests, direction, verdict, seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, statistics
from workflow_scripts.common.intervals import Interval
from workflow_scripts.comparison import verdicts
from workflow_scripts.comparison.behaviour import Behaviour
from workflow_scripts.comparison.evidence import LEVELS, evidence_rows, gather
from workflow_scripts.comparison.pairs import ComparedPair
from workflow_scripts.comparison.settings import CategoryTest
from workflow_scripts.comparison.verdicts import Vote

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
    "others_p",
    "others_q",
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
    "likelihood_gap",
    "likelihood_gap_low",
    "likelihood_gap_high",
    "direction",
    "votes",
    "verdict",
    "seeds",
    "seed_effect",
    "seed_low",
    "seed_high",
    "robust",
)
"""Columns of ``categories.csv``; ``COLUMNS.md`` says what each means."""


def category_table(
    pairs: Sequence[ComparedPair],
    behaviour: Behaviour,
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
        pd.DataFrame(list(evidence_rows(pair, labeller, level, cells, behaviour, class_of, test)))
        for pair in pairs
        for labeller in pair.labellers
        for level in LEVELS
    ]
    blocks = [_judge(block, test) for block in blocks if len(block)]
    if not blocks:
        raise cli.UserError("no comparison has labelled latents: check `comparisons` and `fits`")
    return add_seed_intervals(pd.concat(blocks, ignore_index=True), test)[list(COLUMNS)]


def _judge(block: pd.DataFrame, test: CategoryTest) -> pd.DataFrame:
    """Add q values, direction and verdict to the rows of one family of tests."""
    tested = block["tested"].to_numpy(dtype=bool)
    direct = (block["kind"] == "direct").to_numpy()
    latents = np.where(direct, block["labelled"], block["n_baseline"] + block["n_candidate"])
    enough = latents >= test.least_latents
    block = block.assign(
        q=statistics.adjust(block["p"].where(tested)),
        detection_q=statistics.adjust(block["detection_p"].where(tested & enough)),
        others_q=statistics.adjust(block["others_p"].where(tested & enough)),
    )
    signs, words, agreement = [], [], []
    for row, size in zip(block.to_dict("records"), latents, strict=True):
        votes = votes_of(row)
        is_direct = row["kind"] == "direct"
        sign = verdicts.direction(votes) if is_direct else int(row["count_sign"])
        q = float(row["detection_q"] if is_direct else row["q"])
        verdict = verdicts.verdict(q, test.fdr, size, test.least_latents, sign)
        signs.append(sign)
        words.append(verdict if row["tested"] else "")
        agreement.append(_agreement(votes, sign) if is_direct else "")
    return block.assign(direction=signs, votes=agreement, verdict=words)


def votes_of(row: Mapping[object, object]) -> list[Vote]:
    """Return the votes on a direct row's direction: Δnorm, anchored counts, likelihood gap."""
    votes = []
    for name in ("delta_norm", "anchored_change", "likelihood_gap"):
        value, low, high = (float(str(row[f"{name}{end}"])) for end in ("", "_low", "_high"))
        sign = float(str(row["anchored_sign"])) if name == "anchored_change" else np.sign(value)
        known = 0 if math.isnan(sign) else int(sign)
        votes.append(Vote(known, Interval(value, low, high).excludes(0.0)))
    return votes


def _agreement(votes: Sequence[Vote], sign: int) -> str:
    cast = [vote for vote in votes if vote.sign]
    return f"{sum(vote.sign == sign for vote in cast)} of {len(cast)}" if cast else ""


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
    called = table["detection_q"].where(direct, table["q"]) <= test.fdr
    robust = [
        "n/a" if count < 2 else ("yes" if c and interval.excludes(0.0) else "no")
        for c, (count, interval) in zip(called, intervals, strict=True)
    ]
    return table.assign(
        seeds=[count for count, _ in intervals],
        seed_effect=[interval.estimate for _, interval in intervals],
        seed_low=[interval.low for _, interval in intervals],
        seed_high=[interval.high for _, interval in intervals],
        robust=robust,
    )
