"""Kinds of characters that the methods of ``str`` do not tell apart."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

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


_HIDDEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
_VISIBLE_FORMATS = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u2800\u3164\uffa0"
"""Letters, marks and signs without a shape."""
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINED = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefe"
"""Scripts that joiners shape: Arabic, Syriac, those of India, Burmese, Khmer, Mongolian."""
_PICTURES = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"


@cache
def hidden() -> re.Pattern[str]:
    """Return the expression of a character that cannot be seen or that turns the writing round.

    By Unicode category: controls but for the line feed, formats, private and unassigned ones. A
    joiner is none behind a letter of a script that it shapes, nor one between emoji; a variation
    selector is none behind a character that is not white, an ASCII letter or another selector. Tags
    always are.
    """
    numbers = (n for n in range(0x110000) if unicodedata.category(chr(n)) in _HIDDEN)
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    classes = "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges)
    return re.compile(
        f"(?![\n{JOINERS}{_VISIBLE_FORMATS}])[{classes}]|[{_BLANKS}]"
        f"|(?<![{_JOINED}])\u200c|(?<![{_JOINED}{_PICTURES}])\u200d"
        f"|(?:(?<![^\\sA-Za-z{_SELECTORS}]))[{_SELECTORS}]"
    )
