"""The answer: who gives it, how it is compared with the truth, and its sentence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd
import pytest

from workflow_scripts.common.cli import UserError
from workflow_scripts.comparison.verdicts import (
    CANNOT_TELL,
    GAINED,
    LOST,
    MOVED,
    UNCHANGED,
    USED,
    VERDICTS,
)
from workflow_scripts.comparison.what_changed import (
    categories_of,
    choose,
    what_changed,
)


def rows(verdicts: Mapping[str, str], labeller: str = "true") -> pd.DataFrame:
    """Return rows of ``changes.csv``."""
    sides = {LOST: -0.5, USED: 0.4}
    return pd.DataFrame(
        [
            {
                "comparison": "direct",
                "baseline": "it",
                "candidate": "simpo",
                "seed": 3,
                "labeller": labeller,
                "label": label,
                "behaviour": sides.get(word, 0.5 if word == GAINED else 0.01),
                "verdict": word,
            }
            for label, word in verdicts.items()
        ]
    )


def planted(**words: str) -> dict[object, Mapping[object, object]]:
    """Return what was planted."""
    return {name: {"planted": word} for name, word in words.items()}


def said(verdicts: Mapping[str, str], labeller: str = "true") -> str:
    """Return the sentence."""
    return what_changed(rows(verdicts, labeller), None, {}).sentence


def test_all_verdicts_in_one_sentence() -> None:
    words = {"a_b": GAINED, "c": GAINED, "d": GAINED, "e": LOST, "f": USED, "g": MOVED}
    words |= {"h": UNCHANGED, "i": UNCHANGED, "j": CANNOT_TELL}
    assert said(words) == (
        "Against it, simpo gained a b, c and d and lost e; it predicts f differently, represented"
        " as before; it represents g differently, predicted as before (2 unchanged, 1"
        " undecided; labels: true categories of the text)."
    )


def test_nothing_changed() -> None:
    assert said({"a": UNCHANGED}, "topics") == (
        "Against it, simpo neither gained nor lost any kind of text beyond chance (1 unchanged;"
        " labels: topics found in the text)."
    )


@pytest.mark.parametrize("count", range(1, 7))
def test_every_combination_names_what_it_holds(count: int) -> None:
    parts = {
        GAINED: "gained",
        LOST: "lost",
        USED: "it predicts",
        MOVED: "it represents",
        CANNOT_TELL: "undecided",
    }
    for chosen in itertools.combinations(VERDICTS, count):
        words = {f"text {i}": word for i, word in enumerate(chosen)}
        text = said(words)
        assert text.endswith(".")
        assert text.count("(") == text.count(")") == 1
        neither = GAINED not in chosen and LOST not in chosen
        assert ("neither gained nor lost" in text) == neither
        rest = text.replace("neither gained nor lost", "")
        for word, part in parts.items():
            assert (part in rest) == (word in chosen)
        for label, word in words.items():
            assert (label in text) == (word not in (UNCHANGED, CANNOT_TELL))
        assert f"{sum(word == UNCHANGED for word in chosen)} unchanged" in text


@pytest.mark.parametrize(
    ("labeller", "words"),
    [
        ("true", "true categories of the text"),
        ("source", "sources of the text"),
        ("topics", "topics found in the text"),
        ("llm", "an LLM's"),
        ("task", "task"),
    ],
)
def test_the_sentence_names_the_labeller(labeller: str, words: str) -> None:
    assert f"labels: {words})" in said({"a": GAINED}, labeller)


def test_verdicts_are_compared_with_the_truth() -> None:
    truth = planted(a="gained", b="lost", c="lost", d="gained", e="unchanged", f="gained")
    words = {"a": GAINED, "b": GAINED, "c": MOVED, "d": CANNOT_TELL, "e": UNCHANGED, "g": LOST}
    found = what_changed(rows(words), truth, {name: name for name in "abcdefg"})
    assert found.planted_total == 5  # f has no text that was read
    assert found.planted_found == 1  # a: b has the wrong sign, c has none
    assert found.planted_detected == 3
    assert found.unchanged_total == 2  # e, and g, which no teaching names
    assert found.unchanged_called == 1
    assert found.unchanged_called_names == ["g"]
    assert "; 1 of 5 planted changes were found and 1 of 2 unchanged ones wrongly called." in (
        found.sentence
    )


def test_what_is_used_differently_is_found_by_its_direction() -> None:
    truth = planted(a="gained", b="lost")
    found = what_changed(rows({"a": USED, "b": USED}), truth, {"a": "a", "b": "b"})
    assert (found.planted_found, found.planted_detected) == (1, 2)


def test_topics_of_one_category_count_once() -> None:
    truth = planted(a="gained", b="unchanged")
    of = {"one": "a", "two": "a", "three": "b"}
    words = {"one": GAINED, "two": GAINED, "three": UNCHANGED, "mixed": LOST}
    found = what_changed(rows(words, "topics"), truth, of)
    assert (found.planted_total, found.planted_found) == (1, 1)
    assert found.unchanged_called == 0  # a topic without a category is neither
    assert found.verdicts[LOST] == ["mixed"]


def test_without_a_truth_nothing_is_claimed_of_it() -> None:
    for truth, of in ((None, {"a": "a"}), (planted(a="gained"), {})):
        found = what_changed(rows({"a": GAINED}), truth, of)
        assert found.planted_total is None
        assert found.unchanged_called is None
        assert found.unchanged_called_names == []
        assert "planted" not in found.sentence
    assert (found.comparison, found.seed, found.labeller) == ("direct", 3, "true")
    assert found.verdicts == {word: ["a"] if word == GAINED else [] for word in VERDICTS}


def labels(**by: Sequence[tuple[int, str]]) -> pd.DataFrame:
    """Return labels of documents."""
    rows = [(number, who, label) for who, pairs in by.items() for number, label in pairs]
    return pd.DataFrame(rows, columns=["document", "labeller", "label"])


def test_labels_have_the_category_of_most_of_their_documents() -> None:
    table = labels(
        true=[(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "c"), (6, "a")],
        topics=[(0, "x"), (1, "x"), (2, "x"), (3, "y"), (4, "y"), (9, "z"), (5, "z"), (10, "u")],
    )
    assert categories_of(table, "topics") == {"x": "a", "y": "b", "z": "c"}
    assert categories_of(table, "true") == {"a": "a", "b": "b", "c": "c"}
    assert categories_of(table, "task") == {}
    assert categories_of(labels(topics=[(0, "x")]), "topics") == {}


def test_a_label_of_many_categories_has_none() -> None:
    table = labels(
        true=[(i, "abcd"[i % 4]) for i in range(8)],
        task=[(i, "mixed") for i in range(8)],
    )
    assert categories_of(table, "task") == {}


USUAL = ("true", "source", "topics")


def changes() -> pd.DataFrame:
    """Return rows of two comparisons, of which the second has both axes."""
    table = pd.DataFrame({"comparison": ["anchored"] * 2 + ["direct"] * 2, "label": "a"})
    table["labeller"], table["distance"] = ["topics", "true"] * 2, [float("nan")] * 2 + [0.1] * 2
    return table


def test_the_comparison_with_both_axes_answers() -> None:
    assert choose(changes(), None, None, USUAL) == ("direct", "true")
    assert choose(changes(), "anchored", "topics", USUAL) == ("anchored", "topics")
    behaviour_alone = changes().assign(distance=float("nan"))
    assert choose(behaviour_alone, None, None, USUAL) == ("anchored", "true")


def test_the_first_of_the_usual_labellers_with_labels_answers() -> None:
    assert choose(changes(), None, None, ["llm", "topics", "true"]) == ("direct", "topics")
    labelled = changes().replace({"labeller": {"true": "llm"}})
    assert choose(labelled, None, None, ["llm", "topics"]) == ("direct", "llm")


def test_names_that_nothing_has_are_told() -> None:
    with pytest.raises(UserError, match="no comparison is called nope"):
        choose(changes(), "nope", None, USUAL)
    with pytest.raises(UserError, match=r"no labels by nope: choose from \['topics', 'true'\]"):
        choose(changes(), None, "nope", USUAL)
