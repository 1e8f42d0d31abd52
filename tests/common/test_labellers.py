"""Whose labels answer where none is asked for by name."""

from __future__ import annotations

import pytest

from workflow_scripts.common.labellers import usual


@pytest.mark.parametrize(
    ("labellers", "answers"),
    [
        (["lexical", "second", "true", "first"], "true"),
        (["lexical", "second", "first"], "second"),  # an LLM that was paid for, not the floor
        (["lexical"], "lexical"),
        ([], None),
    ],
)
def test_an_llm_goes_before_counting_words(labellers: list[str], answers: str | None) -> None:
    assert usual(labellers) == answers
