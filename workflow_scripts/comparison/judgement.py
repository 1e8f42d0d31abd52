"""From evidence to verdicts: q values over families of tests, direction, seed-level intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, statistics
from workflow_scripts.common.statistics import Interval
from workflow_scripts.comparison import verdicts
from workflow_scripts.comparison.evidence import LEVELS, Pair, Settings, evidence_rows, weigh
from workflow_scripts.comparison.tables import COLUMNS
from workflow_scripts.comparison.verdicts import Vote


def compare(
    pairs: Sequence[Pair],
    behaviour: pd.DataFrame,
    class_of: Callable[[str], str],
    settings: Settings,
) -> pd.DataFrame:
    """Return the table of all comparisons."""
    cells = {
        (pair.name, pair.place, labeller, level): weigh(pair, labeller, level, settings)
        for pair in pairs
        for labeller in pair.labellers
        for level in LEVELS
    }
    blocks = [
        pd.DataFrame(
            list(evidence_rows(pair, labeller, level, cells, behaviour, class_of, settings))
        )
        for pair in pairs
        for labeller in pair.labellers
        for level in LEVELS
    ]
    blocks = [_judge(block, settings) for block in blocks if len(block)]
    if not blocks:
        raise cli.UserError("no comparison has labelled latents: check `comparisons` and `fits`")
    return add_seed_intervals(pd.concat(blocks, ignore_index=True), settings)[list(COLUMNS)]


def _judge(block: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Add q values, direction and verdict to the rows of one family of tests."""
    tested = block["tested"].to_numpy(dtype=bool)
    direct = (block["kind"] == "direct").to_numpy()
    latents = np.where(direct, block["labelled"], block["n_baseline"] + block["n_candidate"])
    enough = latents >= settings.least_latents
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
        word = verdicts.verdict(q, settings.fdr, size, settings.least_latents, sign)
        signs.append(sign)
        words.append(word if row["tested"] else "")
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


def add_seed_intervals(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
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
    means = {}
    for key, group in effect.groupby([table[k] for k in keys], sort=False):
        means[key] = (len(group), statistics.mean_interval(group, settings.confidence))
    found = [means[key] for key in table[keys].itertuples(index=False, name=None)]
    called = table["detection_q"].where(direct, table["q"]) <= settings.fdr
    robust = [
        "n/a" if count < 2 else ("yes" if c and interval.excludes(0.0) else "no")
        for c, (count, interval) in zip(called, found, strict=True)
    ]
    return table.assign(
        seeds=[count for count, _ in found],
        seed_effect=[interval.estimate for _, interval in found],
        seed_low=[interval.low for _, interval in found],
        seed_high=[interval.high for _, interval in found],
        robust=robust,
    )
