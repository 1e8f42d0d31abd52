"""What the steps that compare categories are told: the flags they share, and what these name."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.common.taxonomy import load_taxonomy
from workflow_scripts.comparison.behaviour import read_behaviour
from workflow_scripts.comparison.evidence import Pair, Settings, read_pairs
from workflow_scripts.comparison.inputs import Comparison
from workflow_scripts.comparison.shares import REFERENCES


@dataclass(frozen=True)
class Job:
    """Everything that is compared, read into memory."""

    pairs: list[Pair]
    behaviour: pd.DataFrame
    class_of: Callable[[str], str]
    settings: Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name inputs and settings."""
    parser.add_argument("--fits", required=True, help="JSON: fit: {models, seeds: {S: files}}")
    parser.add_argument("--comparisons", required=True, help="JSON: name: sides and companions")
    parser.add_argument("--behaviour", type=Path, nargs="*", default=[])
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--confidence", type=float, default=Settings.confidence)
    parser.add_argument("--fdr", type=float, default=Settings.fdr)
    parser.add_argument("--reference", choices=REFERENCES, default=Settings.reference)
    parser.add_argument("--margin", type=float, default=Settings.margin)
    parser.add_argument("--least-latents", type=int, default=Settings.least_latents)


def read_job(a: argparse.Namespace) -> Job:
    """Read what the flags name.

    Raises
    ------
    UserError
        If a flag is no valid JSON, a file is missing, or a comparison names what there is not.
    """
    class_of = load_taxonomy(a.taxonomy).class_of
    fits = cli.parse(a.fits, dict[str, FitFiles], "--fits")
    comparisons = cli.parse(a.comparisons, dict[str, Comparison], "--comparisons")
    settings = Settings(a.confidence, a.fdr, a.reference, a.margin, a.least_latents)
    pairs = read_pairs(fits, comparisons, class_of)
    return Job(pairs, read_behaviour(a.behaviour), class_of, settings)
