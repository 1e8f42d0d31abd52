"""One crosscoder of three models compares as two crosscoders that share the base."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd

from workflow_scripts.common.artifacts import LabelledLatents
from workflow_scripts.comparison.evidence import gather
from workflow_scripts.comparison.pairs import ComparedPair
from workflow_scripts.comparison.settings import CategoryTest, ComparedSide, Comparison

MODELS = ("pt", "it", "simpo")


def labelled() -> LabelledLatents:
    """Return latents of three models with random owners."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"latent": range(60), "category": ["news", "advice", "none"] * 20})
    frame["class"], frame["weight"], frame["unique_to"] = frame["category"], 1.0, ""
    for own, other in permutations(MODELS, 2):
        frame[f"unique_{own}_vs_{other}"] = rng.random(60) < 0.3
    return LabelledLatents(MODELS, frame)


def sides(
    baseline: tuple[str, str], candidate: tuple[str, str], against: str | None = None
) -> Comparison:
    """Return a comparison of two sides, (fit, model) each."""
    before, after = (ComparedSide(fit=fit, model=model) for fit, model in (baseline, candidate))
    return Comparison(baseline=before, candidate=after, against=against)


def test_joint_counts_are_those_against_the_base() -> None:
    side = labelled()
    comparison = sides(("joint", "it"), ("joint", "simpo"), against="pt")
    assert not comparison.is_direct
    pair = ComparedPair("joint", comparison, 0, 0, {"true": side}, {"true": side})
    found = gather(pair, "true", "category", CategoryTest())
    for name in ("news", "advice"):
        mine = side.frame[side.frame["category"] == name]
        counts = found[name].counts
        assert counts.n_baseline == mine["unique_it_vs_pt"].sum()
        assert counts.n_candidate == mine["unique_simpo_vs_pt"].sum()
        assert counts.N_baseline == side.frame["unique_it_vs_pt"].sum()
        assert found[name].share is None


def test_two_crosscoders_of_the_same_latents_give_the_same_counts() -> None:
    side = labelled()
    joint = sides(("joint", "it"), ("joint", "simpo"), against="pt")
    halves = []
    for model in ("it", "simpo"):
        frame = side.frame.copy()
        frame["unique_to"] = np.where(frame[f"unique_{model}_vs_pt"], model, "")
        halves.append({"true": LabelledLatents(("pt", model), frame)})
    anchored = sides(("pt_it", "it"), ("pt_simpo", "simpo"))
    joint_pair = ComparedPair("j", joint, 0, 0, {"true": side}, {"true": side})
    anchored_pair = ComparedPair("a", anchored, 0, 0, *halves)
    one = gather(joint_pair, "true", "category", CategoryTest())
    two = gather(anchored_pair, "true", "category", CategoryTest())
    for name in ("news", "advice"):
        assert one[name].counts == two[name].counts
