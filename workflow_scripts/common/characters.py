"""Kinds of characters that the methods of ``str`` do not tell apart."""

from __future__ import annotations

import unicodedata

UNSPACED = (
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF)),
    *((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
"""Scripts without blanks between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han."""
JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: they shape the letters and emoji beside them."""
_VIRAMAS = "\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d"
_CONTINUING = (
    *((0x0E33, 0x0E33), (0x0EB3, 0x0EB3)),  # Thai and Lao am
    *((0x1160, 0x11FF), (0xD7B0, 0xD7FF)),  # vowels and final consonants of Hangul
    *((0xFF9E, 0xFF9F), (0x1F3FB, 0x1F3FF)),  # marks of narrow kana, skin colours of emoji
    (0xE0020, 0xE007F),  # tags
)
_FLAGS = ((0x1F1E6, 0x1F1FF),)


def is_within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    """Whether a character lies in one of some ranges, both ends included."""
    return any(first <= ord(character) <= last for first, last in ranges)


def is_unspaced(character: str) -> bool:
    """Whether a character's script puts no blanks between words."""
    return is_within(character, UNSPACED)


def is_mark(character: str) -> bool:
    """Whether a character is written on another one, as accents and many vowels are."""
    return unicodedata.category(character)[0] == "M"


def is_one_character(left: str, right: str) -> bool:
    """Whether two neighbouring characters are read as one, so that nothing may part them.

    The rules of Unicode Standard Annex 29 for grapheme clusters, with flags taken together.
    """
    if is_mark(right) or right in JOINERS or is_within(right, _CONTINUING):
        return True
    if left == "\u200d":
        return unicodedata.category(right) in ("So", "Lo", "Mn")
    if left in _VIRAMAS:
        return unicodedata.category(right) == "Lo"
    return is_within(left, _FLAGS) and is_within(right, _FLAGS)
