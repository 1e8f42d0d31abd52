"""What is compared: direct comparisons, the one that answers, and the null beside a fit."""

from __future__ import annotations

import pytest

from tests.run.test_settings import Raw, put, smoke
from workflow_scripts.run import comparisons
from workflow_scripts.run.load import load
from workflow_scripts.run.settings import Config

PT: Raw = {"fit": "pt_it", "model": "pt"}
IT: Raw = {"fit": "pt_it", "model": "it"}
SIMPO: Raw = {"fit": "pt_simpo", "model": "simpo"}


def config(**changes: object) -> Config:
    """Return the smoke run's settings with some replaced; ``__`` stands for a dot."""
    raw = smoke()
    for place, value in changes.items():
        raw = put(raw, place.replace("__", "."), value)
    return load(raw)


@pytest.mark.parametrize(("candidate", "direct"), [(IT, True), (PT, False), (SIMPO, False)])
def test_a_direct_comparison_is_of_two_models_in_one_crosscoder(
    candidate: Raw, direct: bool
) -> None:
    found = config(comparisons__mine={"baseline": PT, "candidate": candidate})
    assert ("mine" in comparisons.direct_comparisons(found)) is direct


def test_latents_against_a_third_model_are_not_compared_directly() -> None:
    three = {"models": ["pt", "it", "simpo"], "layer": 1}
    sides = {
        side: {"fit": "three", "model": model}
        for side, model in (("baseline", "it"), ("candidate", "simpo"))
    }
    for against, direct in ((None, True), ("pt", False)):
        found = config(fits__three=three, comparisons__mine={**sides, "against": against})
        assert ("mine" in comparisons.direct_comparisons(found)) is direct


def test_the_first_direct_comparison_answers_unless_the_config_names_one() -> None:
    assert comparisons.primary(config()) == "direct"
    assert comparisons.primary(config(comparison__primary="anchored")) == "anchored"
    placebo = {"baseline": PT, "candidate": IT}
    found = config(comparisons={"null": placebo, "mine": {**placebo, "placebo": "null"}})
    assert comparisons.primary(found) == "mine"
    assert comparisons.primary(config(fits__it_simpo__control="noise")) is None


def test_the_null_of_a_fit_is_its_placebo_or_a_control() -> None:
    assert comparisons.null_fit(config(), "it_simpo") is None
    control = {"models": ["it", "simpo"], "layer": 1, "control": "noise"}
    found = config(fits__noise=control)
    assert comparisons.null_fit(found, "it_simpo") == "noise"
    assert comparisons.null_fit(found, "noise") is None
    assert comparisons.null_fit(found, "pt_it") is None
    found = config(
        fits__noise=control,
        comparisons__null={"baseline": PT, "candidate": IT},
        comparisons__direct__placebo="null",
    )
    assert comparisons.null_fit(found, "it_simpo") == "pt_it"


LLM: Raw = {"base_url": "http://x/v1", "annotators": {"a": {"model": "m"}}, "max_requests": 9}
ASKED: Raw = {"annotator": "llm", "llm": LLM}
NAMED: Raw = {"kind": "huggingface", "path": "a/b", "revision": "0" * 40}


@pytest.mark.parametrize(
    ("source", "autointerp", "order"),
    [
        ({}, {}, "source topics"),
        ({}, ASKED, "llm source topics"),
        ({}, {**ASKED, "annotator": "lexical"}, "source topics"),
        ({}, {"annotator": "llm", "llm": {**LLM, "documents": {"sample": 0}}}, "source topics"),
        ({"category": "law"}, ASKED, "source llm topics"),
        ({"category_column": ["task", "area"]}, ASKED, "task area llm source topics"),
    ],
)
def test_who_answers_for_text_of_the_users(source: Raw, autointerp: Raw, order: str) -> None:
    found = config(text__sources={"own": NAMED | source}, autointerp=autointerp)
    assert comparisons.labellers(found) == order.split()


def test_who_answers_for_text_of_known_categories() -> None:
    assert comparisons.labellers(config()) == ["true", "source", "topics"]
    assert comparisons.labellers(config(autointerp=ASKED)) == ["true", "llm", "source", "topics"]


def test_a_sweep_needs_several_layers() -> None:
    assert comparisons.layer_sweeps(config()) == {}
    high: Raw = {"fit": "high", "model": "it"}
    found = config(
        layers__high=[2],
        fits__high={"models": ["it", "simpo"], "layer": 2},
        comparisons__high={"baseline": high, "candidate": {**high, "model": "simpo"}},
    )
    assert comparisons.layer_sweeps(found) == {"it_simpo": {"direct": 1, "high": 2}}


def test_compared_fits_and_models() -> None:
    assert comparisons.compared_fits(config()) == ["it_simpo", "pt_it", "pt_simpo"]
    assert comparisons.compared_models(config()) == ["it", "simpo"]
    assert comparisons.planted_pairs(config()) == [("it", "simpo")]


def test_settings_switch_patching_and_differences_off() -> None:
    for setting, listed in (
        ("comparison__cause_documents", comparisons.patched_comparisons),
        ("comparison__difference_tokens", comparisons.difference_comparisons),
    ):
        assert listed(config()) == ["direct"]
        assert listed(config(**{setting: 0})) == []
        assert listed(config(fits__it_simpo__control="noise")) == []


def test_lessons_add_up_along_the_chain_of_bases() -> None:
    taught = comparisons.taught(config(models__it__organism__teach__narrative=7), "it")
    assert taught["narrative"] == [7, 150]
    assert taught["summarization"] == [60]
    assert comparisons.planted_pairs(config()) == [("it", "simpo")]
