"""Compare what two models gained and lost, category by category.

Leaves ``categories.csv``, a row per comparison, seed, labeller, level and name; ``COLUMNS.md``
beside this file states every column.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts import cli
from workflow_scripts.comparison import statistics, verdicts
from workflow_scripts.comparison.behaviour import read_behaviour
from workflow_scripts.comparison.evidence import (
    LEVELS,
    Pair,
    Settings,
    evidence_rows,
    read_pairs,
    weigh,
)
from workflow_scripts.comparison.inputs import Comparison, FitFiles, parse, read_classes
from workflow_scripts.comparison.shares import REFERENCES
from workflow_scripts.comparison.statistics import Interval
from workflow_scripts.comparison.tables import COLUMNS, write_csv
from workflow_scripts.comparison.verdicts import Vote


def compare(
    pairs: Sequence[Pair],
    behaviour: pd.DataFrame,
    classes: Mapping[str, str],
    settings: Settings,
) -> pd.DataFrame:
    """Return the table of all comparisons."""
    cells = {
        (pair.name, pair.seed, labeller, level): weigh(pair, labeller, level, settings)
        for pair in pairs
        for labeller in pair.labellers
        for level in LEVELS
    }
    blocks = [
        pd.DataFrame(
            list(evidence_rows(pair, labeller, level, cells, behaviour, classes, settings))
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


def compare_categories(
    fits: Mapping[str, FitFiles],
    comparisons: Mapping[str, Comparison],
    behaviour: Sequence[Path],
    taxonomy: Path,
    settings: Settings,
    output: Path,
) -> None:
    """Write ``categories.csv``."""
    classes = read_classes(taxonomy)
    pairs = read_pairs(fits, comparisons, classes)
    write_csv(output, compare(pairs, read_behaviour(behaviour), classes, settings))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", required=True, help="JSON: fit: {models, seeds: {S: files}}")
    parser.add_argument("--comparisons", required=True, help="JSON: name: sides and companions")
    parser.add_argument("--behaviour", type=Path, nargs="*", default=[])
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--confidence", type=float, default=Settings.confidence)
    parser.add_argument("--fdr", type=float, default=Settings.fdr)
    parser.add_argument("--reference", choices=REFERENCES, default=Settings.reference)
    parser.add_argument("--margin", type=float, default=Settings.margin)
    parser.add_argument("--least-latents", type=int, default=Settings.least_latents)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)
    assert {f.name for f in fields(Settings)} <= set(vars(a))

    def run() -> None:
        compare_categories(
            parse(a.fits, dict[str, FitFiles], "--fits"),
            parse(a.comparisons, dict[str, Comparison], "--comparisons"),
            a.behaviour,
            a.taxonomy,
            Settings(a.confidence, a.fdr, a.reference, a.margin, a.least_latents),
            a.output,
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
