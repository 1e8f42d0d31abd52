"""Built-in tests of a window's text, named by the taxonomy's lexicons."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from itertools import islice

# The commonest function words of six European languages that are no English words.
_FOREIGN_TEXT = """
    le les des une est avec dans pour mais nous vous ils elle sont pas sur qui que avez cette
    el los las una por para pero muy está son como más porque usted también hay
    der das und ist nicht ein eine mit auf ich wir sie aber auch wie oder für sind haben
    il gli che è sono della nel con per ma anche questo molto
    uma não com os mas você muito também ele ela isso
    het een niet van ook maar zijn wij jij heeft deze goed
"""
_FOREIGN = frozenset(_FOREIGN_TEXT.split())
_WORD = re.compile(r"[^\W\d_]+")
_CODE = re.compile(
    r"(\w+\s?\([^()\n]*\)\s?[:;{])|(^\s*(def|class|return|import|for|while|if)\b[^.\n]*[:;{)]\s*$)"
    r"|([=!<>]=|\+=|-=|=>|->|&&|\|\|)|(\b\w+\s?=\s?[\w\"'\[({]+)|(\w\[\w+\])",
    re.MULTILINE,
)
_JSON = re.compile(
    r"([\"']\s?[\w ]+\s?[\"']\s*:)|(\{\s*[\"'])|([\]}\"']\s*,\s*[\"'\[{])|(\|[^|\n]+\|)"
)
_SUM = re.compile(r"\d+\s*([-+*/×÷=]|plus|minus|times|equals)\s*\d+")
_REFUSAL = re.compile(
    r"\b(I|we)\s?(['’]m| am| are)?\s?(can\s?['’]?\s?t|can\s?not|won\s?['’]?\s?t|will not|unable|"
    r"not able|sorry|must decline|decline to|refuse to)\b",
    re.IGNORECASE,
)
_ACCENTED = re.compile(r"[À-ÖØ-öø-ɏ]")
_BEYOND_LATIN = re.compile(r"[^\x00-ɏ]")


def _occurs(matches: Iterable[object], count: int) -> bool:
    """Whether there are so many; looks no further."""
    return sum(1 for _ in islice(matches, count)) == count


def non_latin_script(text: str) -> bool:
    """Whether at least three letters belong to another script than Latin."""
    beyond = (match[0] for match in _BEYOND_LATIN.finditer(text))
    return _occurs((c for c in beyond if c.isalpha() and not _is_latin(c)), 3)


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith(("LATIN", "MODIFIER", "GREEK SMALL LETTER"))


def foreign_function_words(text: str) -> bool:
    """Whether three or more function words of another European language occur."""
    return _occurs((word for word in _WORD.findall(text) if word.lower() in _FOREIGN), 3)


def accented_letters(text: str) -> bool:
    """Whether two or more Latin letters with accents occur."""
    return _occurs(_ACCENTED.finditer(text), 2)


def code_like(text: str) -> bool:
    """Whether three or more constructs of a programming language occur."""
    return _occurs(_CODE.finditer(text), 3)


def json_like(text: str) -> bool:
    """Whether three or more constructs of JSON or of a table occur."""
    return _occurs(_JSON.finditer(text), 3)


def arithmetic_like(text: str) -> bool:
    """Whether two or more operations on numbers occur."""
    return _occurs(_SUM.finditer(text), 2)


def refusal_like(text: str) -> bool:
    """Whether the text declines in English, in its first 200 characters."""
    return _REFUSAL.search(text[:200]) is not None


TEXT_DETECTORS: dict[str, Callable[[str], bool]] = {
    function.__name__: function
    for function in (
        non_latin_script,
        foreign_function_words,
        accented_letters,
        code_like,
        json_like,
        arithmetic_like,
        refusal_like,
    )
}
LATENT_DETECTORS = ("peaks_on_template", "explained_by_affix", "explained_by_shape")
"""Tests of a whole latent: where it fires, and by which kind of term it is explained."""

DETECTORS = frozenset((*TEXT_DETECTORS, *LATENT_DETECTORS))
