"""Topics in text: found, named by their words, stable, and none where there is too little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tests.dataset.conftest import content
from workflow_scripts.dataset.settings import Topics
from workflow_scripts.dataset.topics import LONGEST_WORD, TopicModel, fit_topics, words_of

CATEGORIES = ("narrative", "source_code", "arithmetic", "safety_refusal", "advice", "summarization")
EACH = 40
TEXTS = [content(category, index) for category in CATEGORIES for index in range(EACH)]
TRUTH = [category for category in CATEGORIES for _ in range(EACH)]
JUNK = "qxz vwk jjp 12 %% "


def fitted(texts: Sequence[str] = TEXTS, seed: int = 0, count: int | None = None) -> TopicModel:
    model = fit_topics(texts, Topics(count=count), seed)
    assert model is not None
    return model


def purity(topics: np.ndarray) -> float:
    """Return the share of documents whose category is the most frequent one of their topic."""
    groups = [Counter(np.array(TRUTH)[topics == topic]) for topic in set(topics.tolist())]
    return sum(max(group.values()) for group in groups) / len(TRUTH)


def test_topics_are_the_kinds_of_text() -> None:
    model = fitted()
    topics = model.predict(TEXTS)
    assert len(model.names) in model.silhouettes
    assert purity(topics) > 0.95
    assert (topics >= 0).mean() > 0.95


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_number_can_be_given(count: int) -> None:
    model = fitted(count=count)
    assert (len(model.names), model.silhouettes) == (count, {})


def test_the_seed_decides_alone() -> None:
    with threadpool_limits(2):
        first = fitted()
    second = fitted()
    assert first.centres.tobytes() == second.centres.tobytes()
    assert (first.names, first.silhouettes) == (second.names, second.silhouettes)
    assert purity(fitted(seed=5).predict(TEXTS)) > 0.95


def test_other_text_has_no_topic() -> None:
    topics = fitted().predict([JUNK * 9, "", "1 + 2 = 3", "日本語の文章です"])
    assert topics.tolist() == [-1, -1, -1, -1]


def test_names_are_distinct_words() -> None:
    hostile = [
        f"<script>alert({i})</script> ../../etc/passwd \x1b[31m{'a' * 60} \u202e {text}"
        for i, text in enumerate(TEXTS)
    ]
    names = fitted(hostile).names
    assert len(set(names)) == len(names)
    for name in names:
        words = name.split(", ")
        assert len(words) == 3
        assert all(word.isalpha() and 1 < len(word) <= LONGEST_WORD for word in words)


def test_equal_names_are_numbered() -> None:
    words = (("one", "two", "three"), ("one", "two", "three"), ())
    model = TopicModel(None, None, np.zeros((3, 2), np.float32), 0, words, {})
    assert model.names == ("one, two, three (1)", "one, two, three (2)", "no words")


@pytest.mark.parametrize(
    "texts",
    [[], ["one word"], ["same text here"] * 200, ["1 2 3"] * 200, TEXTS[:30], [""] * 100],
    ids=["none", "one", "repeated", "numbers", "few", "empty"],
)
def test_too_little_text_has_no_topics(texts: list[str]) -> None:
    assert fit_topics(texts, Topics(), 0) is None


def test_text_of_two_words_has_no_more_topics_than_documents() -> None:
    model = fit_topics(["red green blue", "red yellow brown"] * 60, Topics(count=9), 0)
    assert model is not None
    assert len(model.names) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 12 o'clock, snake_case X", ["it", "clock", "snake", "case"]),
        ("ÜBER naïve", ["über", "naïve"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("中文字 ok", ["中文", "文字", "ok"]),
        ("の", ["の"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("12 + 3 = 15 🙂", []),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words
