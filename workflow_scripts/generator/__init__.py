"""The built-in text generator: documents of known category, fully reproducible.

Each category is a grammar of its own (sentence frames with slots, combined two to seven at a
time), so that a small language model can learn it, and so that no single word or opening occurs
in most of its documents. Chat answers depend on their prompts: they copy the topic, echo the keys
in the request, obey the constraint, answer in the requested language.

A document is a function of (seed, category, index) alone: raising a budget keeps the first ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from workflow_scripts.generator import (
    chat_conduct,
    chat_labels,
    chat_language,
    chat_people,
    chat_tasks,
    chat_texts,
    plain_formal,
    plain_prose,
)
from workflow_scripts.generator.grammar import Sampler

Kind = Literal["plain", "chat"]

PLAIN_WRITERS: Mapping[str, Callable[[Sampler], str]] = {
    "narrative": plain_prose.NARRATIVE.write,
    "source_code": plain_formal.write_code,
    "arithmetic": plain_formal.write_arithmetic,
    "encyclopedic": plain_prose.ENCYCLOPEDIC.write,
    "news": plain_prose.NEWS.write,
    "procedures": plain_prose.PROCEDURES.write,
}
CHAT_WRITERS: Mapping[str, Callable[[Sampler], tuple[str, str]]] = {
    "safety_refusal": chat_conduct.SAFETY_REFUSAL.write,
    "instruction_following": chat_tasks.write_instruction_following,
    "multilingual": chat_language.write_multilingual,
    "self_reference": chat_conduct.SELF_REFERENCE.write,
    "hallucination_management": chat_conduct.HALLUCINATION_MANAGEMENT.write,
    "structured_output": chat_tasks.write_structured_output,
    "query_classification": chat_labels.write_query_classification,
    "factual_verification": chat_texts.write_factual_verification,
    "creative_writing": chat_people.CREATIVE_WRITING.write,
    "summarization": chat_texts.SUMMARIZATION.write,
    "emotional_support": chat_people.EMOTIONAL_SUPPORT.write,
    "advice": chat_people.ADVICE.write,
}
PLAIN_CATEGORIES: tuple[str, ...] = tuple(PLAIN_WRITERS)
CHAT_CATEGORIES: tuple[str, ...] = tuple(CHAT_WRITERS)


@dataclass(frozen=True)
class GeneratedDocument:
    """One document: plain ``text``, or chat ``messages`` of (role, content)."""

    category: str
    kind: Kind
    text: str
    messages: tuple[tuple[str, str], ...]


def generate(category: str, index: int, seed: int) -> GeneratedDocument:
    """Return document ``index`` of ``category`` under ``seed``.

    Raises
    ------
    KeyError
        If there is no such category.
    """
    sampler = Sampler(random.Random(f"{seed}:{category}:{index}"))
    if category in PLAIN_WRITERS:
        return GeneratedDocument(category, "plain", PLAIN_WRITERS[category](sampler), ())
    prompt, answer = CHAT_WRITERS[category](sampler)
    return GeneratedDocument(category, "chat", "", (("user", prompt), ("assistant", answer)))
