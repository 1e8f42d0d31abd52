"""Who labels latents, and whose labels answer where none is asked for by name."""

from __future__ import annotations

from collections.abc import Sequence

TRUE = "true"
"""The known categories of generated text."""
LEXICAL = "lexical"
"""The annotator that counts words."""


def usual(labellers: Sequence[str]) -> str | None:
    """Return true labels, else an LLM's (the first of the table), else lexical ones."""
    for name in (TRUE, *(name for name in labellers if name != LEXICAL), LEXICAL):
        if name in labellers:
            return name
    return None
