"""Who labels documents and latents, whose labels answer, and what counts as an answer."""

from __future__ import annotations

from collections.abc import Sequence

TRUE = "true"
"""The known categories of generated text."""
LEXICAL = "lexical"
"""The annotator that counts words."""
SOURCE = "source"
"""The source of a document, or the constant label that the config gives it."""
LLM = "llm"
"""An LLM's annotators, where they agree on a document; latents have each annotator's labels."""
TOPICS = "topics"
"""Topics found in the text of the documents."""
ANSWERED = ("ok", "repaired", "reasked")
"""Statuses of an annotator's answers that can be used."""


def usual(labellers: Sequence[str]) -> str | None:
    """Return true labels, else an LLM's (the first of the table), else lexical ones."""
    for name in (TRUE, *(name for name in labellers if name != LEXICAL), LEXICAL):
        if name in labellers:
            return name
    return None
