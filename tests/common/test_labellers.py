"""Whose labels answer where none is asked for by name."""

from __future__ import annotations

import pandas as pd
import pytest

from workflow_scripts.common.labellers import usual
from workflow_scripts.comparison.what_changed import choose


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


def test_the_answer_of_an_llm_run_is_the_llms() -> None:
    rows = [{"comparison": "direct", "kind": "direct", "labeller": n} for n in ("lexical", "gpt")]
    assert choose(pd.DataFrame(rows), None, None) == ("direct", "gpt")
