"""One crosscoder of three models compares as two crosscoders that share the base."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.common import cli
from workflow_scripts.common.artifacts import FitFiles, LabelledLatents
from workflow_scripts.comparison.evidence import Pair, Settings, read_pairs, weigh
from workflow_scripts.comparison.inputs import Comparison, Side

MODELS = ("pt", "it", "simpo")


def labelled() -> LabelledLatents:
    """Return latents of three models with random owners."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"latent": range(60), "category": ["news", "advice", "none"] * 20})
    frame["class"], frame["weight"], frame["unique_to"] = frame["category"], 1.0, ""
    for own, other in permutations(MODELS, 2):
        frame[f"unique_{own}_vs_{other}"] = rng.random(60) < 0.3
    return LabelledLatents(MODELS, frame)


def test_joint_counts_are_those_against_the_base() -> None:
    side = labelled()
    comparison = Comparison(Side("joint", "it"), Side("joint", "simpo"), against="pt")
    assert not comparison.direct
    pair = Pair("joint", comparison, 0, 0, {"true": side}, {"true": side})
    found = weigh(pair, "true", "category", Settings())
    for name in ("news", "advice"):
        mine = side.frame[side.frame["category"] == name]
        counts = found[name].counts
        assert counts.n_baseline == mine["unique_it_vs_pt"].sum()
        assert counts.n_candidate == mine["unique_simpo_vs_pt"].sum()
        assert counts.N_baseline == side.frame["unique_it_vs_pt"].sum()
        assert found[name].share is None


def test_two_crosscoders_of_the_same_latents_give_the_same_counts() -> None:
    side = labelled()
    joint = Comparison(Side("joint", "it"), Side("joint", "simpo"), against="pt")
    halves = []
    for model in ("it", "simpo"):
        frame = side.frame.copy()
        frame["unique_to"] = np.where(frame[f"unique_{model}_vs_pt"], model, "")
        halves.append({"true": LabelledLatents(("pt", model), frame)})
    anchored = Comparison(Side("pt_it", "it"), Side("pt_simpo", "simpo"))
    one = weigh(
        Pair("j", joint, 0, 0, {"true": side}, {"true": side}), "true", "category", Settings()
    )
    two = weigh(Pair("a", anchored, 0, 0, halves[0], halves[1]), "true", "category", Settings())
    for name in ("news", "advice"):
        assert one[name].counts == two[name].counts


def test_against_must_be_a_model_of_the_fit() -> None:
    comparison = Comparison(Side("joint", "it"), Side("joint", "simpo"), against="base")
    with pytest.raises(cli.UserError, match="names the model base, which joint does not hold"):
        read_pairs({"joint": FitFiles(models=MODELS, seeds={})}, {"j": comparison}, str)
