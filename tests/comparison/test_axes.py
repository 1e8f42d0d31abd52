"""Tests on both axes under simulation, and the rule that turns them into a verdict."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.common.intervals import Interval
from workflow_scripts.common.statistics import adjust
from workflow_scripts.comparison.axes import (
    Background,
    Effect,
    background,
    judge_behaviour,
    judge_representation,
    reference,
)
from workflow_scripts.comparison.label_text import LabelText, Measure
from workflow_scripts.comparison.settings import Judgement
from workflow_scripts.comparison.verdicts import (
    CANNOT_TELL,
    CHANGED,
    GAINED,
    LOST,
    MOVED,
    UNCHANGED,
    USED,
    VERDICTS,
    verdict,
)

RULE = Judgement()
SPREAD = 0.15  # usual mean absolute gap of a token of unchanged text, nats


def measured(values: np.ndarray) -> Measure:
    """Return the mean of documents with its normal interval."""
    mean = float(values.mean())
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return Measure(Interval(mean, mean - 1.96 * error, mean + 1.96 * error), error, len(values))


def label_text(
    rng: np.random.Generator, gap: float = 0.0, distance: float = 0.1, documents: int = 60
) -> LabelText:
    """Draw a label: chance in training moves its gap by 0.2 of its spread, its distance by 0.3."""
    shifted = gap + RULE.training_noise * SPREAD * rng.standard_normal()
    tokens = rng.normal(0, SPREAD * math.sqrt(math.pi / 2), (documents, 30))
    spread = float(np.abs(gap + tokens).mean())
    own = distance * math.exp(RULE.usual_scatter * rng.standard_normal())
    distances = own * rng.gamma(40, 1 / 40, documents)
    ratios = {"distance": measured(distances)}
    return LabelText(measured(shifted + tokens.mean(1)), spread, documents * 30, ratios)


def drawn(
    seed: int, gaps: dict[str, float], unchanged: int = 10, documents: int = 60
) -> dict[str, LabelText]:
    """Draw labels with these gaps, which are far apart, and unchanged ones."""
    rng = np.random.default_rng(seed)
    changed = {name: label_text(rng, gap, 0.8, documents) for name, gap in gaps.items()}
    return changed | {f"same{i}": label_text(rng, documents=documents) for i in range(unchanged)}


def judged(texts: dict[str, LabelText], rule: Judgement = RULE) -> dict[str, str]:
    """Return the verdicts."""
    behaviour = judge_behaviour(texts, rule)
    representation = judge_representation(texts, behaviour, rule)
    return {name: verdict(behaviour[name], representation[name]) for name in texts}


def fixed(gap: float, error: float = 0.01, spread: float = 0.1, documents: int = 50) -> LabelText:
    """Return a label with a given gap."""
    interval = Interval(gap, gap - 2 * error, gap + 2 * error)
    return LabelText(Measure(interval, error, documents), spread, 1000)


def at_distance(distance: float, error: float = 0.01, documents: int = 50) -> LabelText:
    """Return a label with a given relative distance."""
    interval = Interval(distance, distance - 2 * error, distance + 2 * error)
    ratios = {"distance": Measure(interval, error, documents)}
    return LabelText(Measure(Interval(0, 0, 0), 0.01, documents), 0.1, 1000, ratios)


@pytest.mark.parametrize("labels", [4, 11, 40])
def test_unchanged_labels_are_rarely_called(labels: int) -> None:
    """500 pairs in which nothing changed: at most 2 % of labels are called.

    Each axis is a family of its own: a table has a call no more often than in twice the rate.
    """
    pairs = 500 if labels == 11 else 150
    called = [
        sum(word in CHANGED for word in judged(drawn(seed, {}, labels)).values())
        for seed in range(pairs)
    ]
    assert np.mean(called) / labels <= 0.02
    assert np.mean(np.array(called) > 0) <= 2 * RULE.fdr


@pytest.mark.parametrize(
    "gaps",
    [
        {"new": 0.8},
        {f"new{i}": (-1) ** i * (0.6 + 0.1 * i) for i in range(10)},
        {f"new{i}": 0.6 + 0.1 * i for i in range(10)},
    ],
    ids=["one", "half, both directions", "half, one direction"],
)
def test_changes_are_called_with_their_direction(gaps: dict[str, float]) -> None:
    found, false, labels = 0, 0, 0
    for seed in range(40):
        words = judged(drawn(seed, gaps))
        found += sum(words[name] == (GAINED if gap > 0 else LOST) for name, gap in gaps.items())
        same = [word for name, word in words.items() if name not in gaps]
        false, labels = false + sum(word in CHANGED for word in same), labels + len(same)
    assert found >= 0.95 * 40 * len(gaps)
    assert false <= 0.02 * labels


@pytest.mark.parametrize("unchanged", [0, 1, 2])
def test_most_or_all_labels_may_have_changed(unchanged: int) -> None:
    gaps = {f"new{i}": (-1) ** i * (0.6 + 0.15 * i) for i in range(9)}
    found = 0
    for seed in range(20):
        words = judged(drawn(seed, gaps, unchanged))
        found += sum(words[name] in (GAINED, LOST) for name in gaps)
        assert all(words[name] not in (GAINED, LOST) for name in words if name not in gaps)
    assert found >= 0.95 * 20 * len(gaps)


def test_all_changed_alike_are_no_shared_shift() -> None:
    """A cluster of gaps is a shift of all text only where it is small beside the largest gap."""
    words = judged({f"new{i}": fixed(0.7 + 0.01 * i) for i in range(8)})
    assert set(words.values()) == {GAINED}


def test_a_shift_that_all_text_shares_is_no_change() -> None:
    """Forgetting: the candidate is worse on all text by 0.1 nats, and better on one kind."""
    gaps = {f"same{i}": fixed(-0.1 + 0.005 * i) for i in range(9)} | {"new": fixed(0.8)}
    effects = judge_behaviour(gaps, RULE)
    assert [name for name, effect in effects.items() if effect.called] == ["new"]
    assert effects["new"].interval.estimate == pytest.approx(0.9, abs=0.03)
    assert effects["same4"].interval.estimate == pytest.approx(0, abs=0.03)


def test_background_is_the_narrowest_window_near_nothing() -> None:
    gaps = np.array([0.05, 0.051, 0.052, -0.6, -0.2, 0.9, 1.0, 0.3])
    found = background(gaps, RULE)
    assert found.shift == pytest.approx(0.051)
    assert found.scatter == pytest.approx(0.001)
    assert background(np.array([0.5, 0.1, 0.1]), RULE).shift == 0  # three say nothing
    assert background(np.array([]), RULE).shift == 0
    assert background(np.array([1.0, 1.01, 1.02, 1.03]), RULE).shift == 0


def test_the_test_of_behaviour_is_the_formula() -> None:
    texts = {"a": fixed(0.9, 0.02, 0.8), "b": fixed(0.1, 0.01, 0.2), "c": fixed(-0.3, 0.05, 0.3)}
    effects = judge_behaviour(texts, RULE)
    floor = RULE.side_effect * 0.9
    errors = np.hypot([0.02, 0.01, 0.05], 0.2 * np.array([0.8, 0.2, 0.3]))
    p = stats.norm.sf((np.array([0.9, 0.1, 0.3]) - floor) / errors)
    assert [effects[n].q for n in "abc"] == pytest.approx(list(adjust(p)))
    least = floor + stats.norm.isf(0.1) * errors
    assert [effects[n].least for n in "abc"] == pytest.approx(list(least))
    assert [effects[n].called for n in "abc"] == [True, False, True]


def test_least_is_the_least_gap_that_is_called_alone() -> None:
    least = judge_behaviour({"a": fixed(0.0)}, RULE)["a"].least
    assert judge_behaviour({"a": fixed(1.001 * least)}, RULE)["a"].called
    assert not judge_behaviour({"a": fixed(0.999 * least)}, RULE)["a"].called
    assert judge_behaviour({"a": fixed(-1.001 * least)}, RULE)["a"].called


def test_a_greater_gap_is_never_less_certain() -> None:
    others = {f"same{i}": fixed(0.01 * (-1) ** i) for i in range(6)}
    q = [
        judge_behaviour(others | {"x": fixed(gap)}, RULE)["x"].q
        for gap in np.linspace(0.03, 1.5, 30)
    ]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(q))
    assert q[0] > 0.5
    assert q[-1] < 1e-6


def test_side_effects_of_a_large_change_are_none() -> None:
    """A gap of 0.3 nats is a change, but not beside one of 8 nats."""
    assert judge_behaviour({"a": fixed(0.3), "b": fixed(0.0)}, RULE)["a"].called
    assert not judge_behaviour({"a": fixed(0.3), "b": fixed(8.0)}, RULE)["a"].called


def test_a_model_against_itself_is_unchanged() -> None:
    """No gap and no distance at all, without any scatter: nothing is undefined."""
    with np.errstate(all="raise"):
        texts = {name: at_distance(0.0, 0.0) for name in "abcd"}
        for text in texts.values():
            assert text.distance.relative == 0
        same = {
            name: LabelText(Measure(Interval(0, 0, 0), 0.0, 50), 0.0, 1000, text.ratios)
            for name, text in texts.items()
        }
        assert set(judged(same).values()) == {UNCHANGED}
        floorless = RULE.model_copy(update={"behaviour_floor": 0.0})
        assert set(judged(same, floorless).values()) == {UNCHANGED}


def test_few_documents_cannot_tell() -> None:
    texts = drawn(0, {"new": 2.0}) | {"rare": fixed(3.0, documents=9)}
    words = judged(texts)
    assert words["new"] == GAINED
    assert words["rare"] == CANNOT_TELL
    effect = judge_behaviour(texts, RULE)["rare"]
    assert math.isnan(effect.q)
    assert math.isnan(effect.interval.estimate)


def test_text_too_noisy_to_see_a_relevant_gap_cannot_tell() -> None:
    words = judged({"noisy": fixed(0.1, error=0.5), "clear": fixed(0.01), "other": fixed(0.0)})
    assert words == {"noisy": CANNOT_TELL, "clear": UNCHANGED, "other": UNCHANGED}


def test_a_gap_that_only_chance_in_training_explains_cannot_tell() -> None:
    """Sure over documents, and beyond the side effects: it is not "unchanged" either."""
    texts = {f"same{i}": fixed(0.0, error=0.01) for i in range(4)}
    texts |= {"new": fixed(1.0, error=0.01), "odd": fixed(0.2, error=0.01, spread=0.5)}
    words = judged(texts)
    assert words == {**{f"same{i}": UNCHANGED for i in range(4)}, "new": GAINED, "odd": CANNOT_TELL}


def test_labels_far_apart_share_no_shift() -> None:
    """Of twelve that all changed, three straddle 0: their scatter is no noise of the others."""
    gaps = (-4.4, -2.1, -1.6, -1.12, -1.02, -0.98, 0.95, 1.2, 1.3, 1.8, 1.9, 2.6)
    assert background(np.array(gaps), RULE) == Background()
    texts = {f"label{i}": fixed(gap, spread=abs(gap)) for i, gap in enumerate(gaps)}
    assert set(judged(texts).values()) == {GAINED, LOST}


def test_without_documents_nothing_is_judged() -> None:
    assert judged({}) == {}
    assert judged({"a": LabelText()}) == {"a": CANNOT_TELL}


def test_representation_is_held_against_unchanged_labels_only() -> None:
    """Labels whose behaviour changed are no reference: else they would hide each other."""
    texts = {f"same{i}": at_distance(0.1 + 0.01 * i) for i in range(4)}
    texts |= {f"new{i}": at_distance(0.6) for i in range(8)}
    called = {name: Effect(Interval(1, 1, 1), 0.0, 0.1, name.startswith("new")) for name in texts}
    effects = judge_representation(texts, called, RULE)
    assert {name for name, e in effects.items() if e.called} == {f"new{i}" for i in range(8)}
    beside = reference([0.1, 0.11, 0.12, 0.13], RULE)
    assert beside.mean == pytest.approx(stats.gmean([0.1, 0.11, 0.12, 0.13]))
    assert effects["new0"].interval.estimate == pytest.approx(0.6 - beside.mean)
    assert effects["new0"].q == pytest.approx(beside.p(0.6, 0.01 / 0.6))


def test_a_change_of_behaviour_is_the_gatekeeper() -> None:
    """At 1.8 times the reference a distance counts with a change of behaviour, not without."""
    texts = {f"same{i}": at_distance(0.1) for i in range(20)} | {"x": at_distance(0.2)}
    for gate in (True, False):
        behaviour = {name: Effect(q=0.5, called=gate and name == "x") for name in texts}
        effects = judge_representation(texts, behaviour, RULE)
        assert effects["x"].called == gate
        assert not any(effects[f"same{i}"].called for i in range(20))


def test_what_moves_without_behaviour_is_called_by_its_distance() -> None:
    texts = {f"same{i}": at_distance(0.1) for i in range(9)} | {"x": at_distance(0.5)}
    assert judged(texts)["x"] == MOVED
    assert judged(texts | {"x": at_distance(0.15)})["x"] == UNCHANGED


def test_without_a_reference_the_floor_is_it() -> None:
    texts = {"a": at_distance(0.9), "b": at_distance(0.03)}
    behaviour = dict.fromkeys(texts, Effect(Interval(1, 1, 1), 0.0, 0.1, called=True))
    effects = judge_representation(texts, behaviour, RULE)
    assert effects["a"].called
    assert not effects["b"].called
    assert effects["a"].interval.estimate == pytest.approx(0.9 - RULE.distance_floor)


def test_distances_below_the_floor_are_alike() -> None:
    found = reference([0.0, 1e-6, 0.001], RULE)
    assert found.mean == pytest.approx(RULE.distance_floor)
    assert found.p(0.0, 0.0) == 1.0
    texts = {f"same{i}": at_distance(1e-5, 1e-6) for i in range(6)} | {"x": at_distance(0.002)}
    assert judged(texts)["x"] == UNCHANGED


def test_least_distance_is_the_least_that_is_called() -> None:
    texts = {f"same{i}": at_distance(0.1) for i in range(6)}
    behaviour = dict.fromkeys([*texts, "x"], Effect(q=0.5))
    behaviour["x"] = Effect(Interval(1, 1, 1), 0.0, 0.1, called=True)
    # The error of the logarithm stays the same, as the least effect assumes.
    beside = reference([0.1] * 6, RULE)
    least = judge_representation(texts | {"x": at_distance(0.2, 0.02)}, behaviour, RULE)["x"].least
    for factor, called in ((1.001, True), (0.999, False)):
        place = beside.mean + factor * least
        text = at_distance(place, 0.1 * place)
        assert judge_representation(texts | {"x": text}, behaviour, RULE)["x"].called == called


def test_a_greater_distance_is_never_less_certain() -> None:
    beside = reference([0.1, 0.2, 0.15], RULE)
    p = [beside.p(distance, 0.05) for distance in np.linspace(0.05, 3, 40)]
    assert all(b < a for a, b in itertools.pairwise(p))
    more = reference([0.1, 0.2, 0.15] * 5, RULE)
    assert more.p(1.0, 0.05) < beside.p(1.0, 0.05)  # more labels know their scatter better


def test_p_of_unchanged_distances_is_uniform() -> None:
    """A new label of the same kind is called as often as the level says."""
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(math.log(0.1), RULE.usual_scatter, (2000, 7)))
    p = np.array([reference(list(row[1:]), RULE).p(row[0], 0.0) for row in drawn])
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.025)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.04)


def test_chance_calls_of_the_moved_are_adjusted() -> None:
    texts = {f"same{i}": at_distance(0.1 + 0.02 * (i % 3)) for i in range(9)}
    texts |= {"x": at_distance(0.3)}
    behaviour = dict.fromkeys(texts, Effect(q=0.5))
    effects = judge_representation(texts, behaviour, RULE)
    p = []
    for name, text in texts.items():
        others = [t.distance.interval.estimate for n, t in texts.items() if n != name]
        error = text.distance.relative
        p.append(reference(others, RULE).p(text.distance.interval.estimate, error))
    assert [e.q for e in effects.values()] == pytest.approx(list(adjust(p)))


def test_labels_without_weighed_documents_have_no_representation() -> None:
    effects = judge_representation({"a": fixed(1.0)}, {"a": Effect()}, RULE)
    assert math.isnan(effects["a"].q)
    assert not effects["a"].called


@pytest.mark.parametrize(
    ("gap", "behaves", "moves", "excluded", "word"),
    [
        (0.5, True, True, (False, False), GAINED),
        (-0.5, True, True, (False, False), LOST),
        (0.5, True, False, (False, False), GAINED),
        (-0.5, True, False, (False, False), LOST),
        (0.5, True, False, (False, True), USED),
        (-0.5, True, False, (False, True), USED),
        (0.5, True, True, (False, True), GAINED),
        (0.0, False, True, (False, False), MOVED),
        (0.0, False, True, (True, True), MOVED),
        (0.0, False, False, (True, False), UNCHANGED),
        (0.0, False, False, (True, True), UNCHANGED),
        (0.0, False, False, (False, True), CANNOT_TELL),
    ],
)
def test_the_rule_of_the_verdict(
    gap: float, behaves: bool, moves: bool, excluded: tuple[bool, bool], word: str
) -> None:
    interval = Interval(gap, gap - 0.1, gap + 0.1)
    behaviour = Effect(interval, called=behaves, excluded=excluded[0])
    representation = Effect(Interval(0.3, 0.2, 0.4), called=moves, excluded=excluded[1])
    assert verdict(behaviour, representation) == word
    assert word in VERDICTS


def test_an_axis_that_was_not_measured_says_nothing() -> None:
    seen = Effect(Interval(0.5, 0.4, 0.6), 0.01, 0.1, called=True)
    assert verdict(Effect(), Effect()) == CANNOT_TELL
    assert verdict(Effect(), seen) == MOVED
    assert verdict(seen, Effect()) == GAINED


def test_used_differently_needs_a_reference_that_is_sure() -> None:
    """A distance like that of many unchanged labels excludes a change, one like that of two not."""
    behaviour = {"x": Effect(Interval(1, 1, 1), 0.0, 0.1, called=True)}
    for labels, excluded in ((40, True), (2, False)):
        texts = {f"same{i}": at_distance(0.1, 0.001) for i in range(labels)}
        rest = dict.fromkeys(texts, Effect(q=0.5))
        effects = judge_representation(
            texts | {"x": at_distance(0.09, 0.001)}, behaviour | rest, RULE
        )
        assert not effects["x"].called
        assert effects["x"].excluded == excluded


def test_more_documents_see_smaller_gaps() -> None:
    found = []
    for documents in (12, 50, 800):
        texts = drawn(3, {}, documents=documents)
        effects = judge_behaviour(texts, RULE)
        found.append(np.mean([effect.least for effect in effects.values()]))
    assert found[0] > found[1] > found[2] > RULE.training_noise * SPREAD
