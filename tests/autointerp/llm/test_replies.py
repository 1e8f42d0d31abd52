"""What counts as an answer: every failure is a status, and no input leads to a default label."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.autointerp.annotation_tables import GOOD
from workflow_scripts.autointerp.llm.replies import (
    CategoryChoice,
    Exchange,
    Expected,
    Explanation,
    ItemScores,
    Outcome,
    Reask,
    Redraw,
    Verdict,
    answer_model,
    conclude,
    repeats,
    schema,
)
from workflow_scripts.autointerp.prompting.templates import load_prompt
from workflow_scripts.autointerp.settings import Variant

EXPLAIN = Expected("explain")
CLASSIFY = Expected("classify", ids=("one", "two", "unassigned"))
BOUNDS = ("maxLength", "minItems", "maxItems", "minimum", "maximum")
SCORE = Expected("score", items=("a1", "a2"))


def _one(expected: Expected, content: str | None, finish: str = "stop") -> Verdict:
    return conclude(expected, [Exchange("k", content, finish)])


def test_strict_fenced_and_embedded_answers() -> None:
    good = '{"explanation": "names of fruit"}'
    answer = Explanation(explanation="names of fruit")
    assert _one(EXPLAIN, good) == Outcome("ok", answer)
    assert _one(EXPLAIN, f"Here:\n```json\n{good}\n```") == Outcome("repaired", answer)
    assert _one(EXPLAIN, f"I think {good} is it") == Outcome("repaired", answer)
    assert _one(EXPLAIN, f"<think>maybe</think>\n{good}") == Outcome("repaired", answer)


@pytest.mark.parametrize(
    "content",
    [
        "{'category': 'one', 'confidence': 7}",
        '{"category": "one", "confidence": 7,}',
        '{category: "one", confidence: 7}',
        'So:\n```json\n{"category": "one", // as before\n "confidence": 7}\n```',
        '<think>{one} or {two}?</think>{"category": "one", "confidence": 7}',
        '<think>{one} or {"category": "two"}?</think>```{"category": "one", "confidence": 7}```',
    ],
)
def test_an_answer_that_is_broken_json_is_repaired(content: str) -> None:
    answer = answer_model(CLASSIFY).model_validate({"category": "one", "confidence": 7})
    assert _one(CLASSIFY, content) == Outcome("repaired", answer)


@pytest.mark.parametrize(
    "content",
    [
        '{"category": "one", "confidence": 7',
        '{"category": "one',
        '```json\n{"category": "o',
    ],
)
def test_a_reply_that_was_cut_off_is_not_completed(content: str) -> None:
    assert isinstance(_one(CLASSIFY, content), Reask)


def test_a_long_reply_is_not_repaired() -> None:
    content = "{'explanation': 'x'}"
    assert isinstance(_one(EXPLAIN, content), Outcome)
    assert isinstance(_one(EXPLAIN, content + " " * 20_000), Reask)


@pytest.mark.parametrize(
    ("expected", "content", "reason"),
    [
        (EXPLAIN, "words about fruit", "no JSON object"),
        (EXPLAIN, '{"explanation": ""}', "must not be empty"),
        (EXPLAIN, '{"explanation": "   \\u200b "}', "must not be empty"),
        (EXPLAIN, '{"explanation": 3}', "must be a text"),
        (
            EXPLAIN,
            '{"explanation": "One sentence of at most 40 words."}',
            "must describe the texts",
        ),
        (EXPLAIN, '{"explanation": "x", "note": "y"}', "exactly the keys"),
        (EXPLAIN, '{"explanation": "x", "explanation": "y"}', "repeats a key"),
        (EXPLAIN, json.dumps({"explanation": "x" * 501}), "at most 500"),
        (EXPLAIN, '["explanation"]', "no JSON object"),
        (EXPLAIN, "[" * 100_000, "no JSON object"),
        (EXPLAIN, "{" * 5000, "no JSON object"),
        (CLASSIFY, '{"category": "three", "confidence": 5}', "one of the listed ids"),
        (CLASSIFY, '{"category": "One", "confidence": 5}', "one of the listed ids"),
        (CLASSIFY, '{"category": ["one"], "confidence": 5}', "one of the listed ids"),
        (CLASSIFY, '{"category": "one", "confidence": NaN}', "NaN"),
        (CLASSIFY, '{"category": "one", "confidence": 101}', "0 to 100"),
        (CLASSIFY, '{"category": "one", "confidence": true}', "0 to 100"),
        (CLASSIFY, '{"category": "one"}', "exactly the keys"),
        (SCORE, '{"answers": [{"item": "a1", "score": 1}]}', "one answer for each"),
        (SCORE, '{"answers": [{"item": "a1", "score": 1}, {"item": "a1", "score": 2}]}', "twice"),
        (SCORE, '{"answers": [{"item": "a3", "score": 1}]}', "one of the given codes"),
        (SCORE, '{"answers": {"a1": 1, "a2": 2}}', "must be a list"),
        (SCORE, '{"answers": [1, 2]}', "must be an object"),
        (SCORE, '{"answers": [{"item": "a1", "score": 1' + "0" * 5000 + "}]}", "0 to 100"),
    ],
)
def test_invalid_answers_are_asked_for_again_twice(
    expected: Expected, content: str, reason: str
) -> None:
    verdict = _one(expected, content)
    assert isinstance(verdict, Reask)
    assert reason in verdict.reason
    exchange = Exchange("k", content, "stop")
    assert isinstance(conclude(expected, [exchange] * 2), Reask)
    assert conclude(expected, [exchange] * 3) == Outcome("invalid")


def test_scores_are_given_by_item() -> None:
    content = '{"answers": [{"item": "a2", "score": 7}, {"item": "a1", "score": 90}]}'
    outcome = _one(SCORE, content)
    assert isinstance(outcome, Outcome)
    assert isinstance(outcome.answer, ItemScores)
    assert outcome.answer.by_item() == {"a1": 90, "a2": 7}


def test_a_good_answer_after_a_bad_one_is_reasked() -> None:
    good = Exchange("k", '{"explanation": "x"}', "stop")
    outcome = conclude(EXPLAIN, [Exchange("k", "prose", "stop"), good])
    assert outcome == Outcome("reasked", Explanation(explanation="x"))


def test_refusals_truncations_and_filters_are_never_read() -> None:
    good = '{"category": "one", "confidence": 9}'
    for reason in ("length", "MAX_TOKENS", "model_length"):
        assert _one(CLASSIFY, good, reason) == Redraw(short=False)
        assert conclude(CLASSIFY, [Exchange("k", good, reason)] * 3) == Outcome("truncated")
    assert _one(CLASSIFY, good, "content_filter") == Outcome("filtered")
    refused = conclude(CLASSIFY, [Exchange("k", good, "stop", refusal="no")])
    assert refused == Outcome("refused")


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_an_empty_reply_is_drawn_again_and_has_its_own_status(content: str | None) -> None:
    assert _one(EXPLAIN, content) == Redraw(short=False)
    assert conclude(EXPLAIN, [Exchange("k", content, "stop")] * 3) == Outcome("empty")
    assert conclude(EXPLAIN, [Exchange("k", content, "length")] * 3) == Outcome("truncated")


def test_a_reply_that_repeats_itself_is_drawn_again_with_a_lower_limit() -> None:
    running = '{"explanation": "' + "the word, " * 30
    assert _one(EXPLAIN, running, "length") == Redraw(short=True)
    whole = json.dumps({"explanation": "names of fruit and " * 8})
    assert _one(EXPLAIN, whole) == Redraw(short=True)
    assert conclude(EXPLAIN, [Exchange("k", whole, "stop")] * 3) == Outcome("invalid")
    assert not repeats("Names of fruit, of trees and of their parts, in lists such as 1, 2, 3, 4.")
    assert not repeats("Laughter: ha ha ha ha ha ha.")


def test_explanations_are_cleaned_of_control_characters() -> None:
    content = json.dumps({"explanation": "a\nb\x00\u202ec\t d"})
    assert _one(EXPLAIN, content) == Outcome("ok", Explanation(explanation="a bc d"))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_IDS = st.sampled_from([*CLASSIFY.ids, "One", "three", "one ", "", "uninterpretable"]) | st.text()
_LABELS = st.fixed_dictionaries(
    {"category": _IDS | _VALUES, "confidence": st.integers(0, 100) | _VALUES},
    optional={"x": _VALUES},
)
_REPLIES = (
    st.text()
    | (_LABELS | _VALUES).map(json.dumps)
    | st.tuples(st.text(), _LABELS.map(json.dumps), st.text()).map("".join)
)


def test_no_reply_leads_to_a_label_outside_the_list() -> None:
    accepted: set[str] = set()

    @settings(max_examples=1000, deadline=None, derandomize=True)
    @given(_REPLIES, st.sampled_from(["stop", "stop", "length", "content_filter", ""]))
    def check(content: str, finish: str) -> None:
        outcome = conclude(CLASSIFY, [Exchange("k", content, finish)] * 3)
        assert isinstance(outcome, Outcome)
        assert (outcome.answer is not None) == (outcome.status in GOOD)
        if outcome.answer is not None:
            assert isinstance(outcome.answer, CategoryChoice)
            assert outcome.answer.category in CLASSIFY.ids
            assert json.dumps(outcome.answer.category) in content
            assert finish not in ("length", "content_filter")
            accepted.add(outcome.answer.category)

    check()
    assert accepted == set(CLASSIFY.ids)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_what_stands_for_an_explanation_in_a_prompt_is_none(variant: str) -> None:
    form = load_prompt("explain", variant).system.splitlines()[-1]
    assert form.startswith('{"explanation": "')
    assert isinstance(_one(EXPLAIN, form), Reask)


def test_schemas_are_strict() -> None:
    for expected in (EXPLAIN, CLASSIFY, SCORE):
        for bounds in (True, False):
            assert schema(expected, bounds)["additionalProperties"] is False
        assert not [w for w in BOUNDS if w in json.dumps(schema(expected, bounds=False))]
    assert schema(EXPLAIN)["properties"] == {"explanation": {"type": "string", "maxLength": 300}}
    answers = json.dumps(schema(SCORE))
    assert '"minItems": 2, "type": "array"' in answers
    assert '"maximum": 100, "minimum": 0, "type": "integer"' in answers
    assert '"enum": ["one", "two", "unassigned"]' in json.dumps(schema(CLASSIFY))
