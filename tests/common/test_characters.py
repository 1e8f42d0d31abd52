"""What cannot be seen is found; what shapes letters and emoji stays."""

from __future__ import annotations

import pytest

from tests.latents.scripts import TEXTS
from workflow_scripts.common.characters import hidden


@pytest.mark.parametrize("language", sorted(TEXTS.keys() - {"emoji"}))
def test_text_of_any_script_is_seen(language: str) -> None:
    assert hidden().findall(TEXTS[language]) == []


@pytest.mark.parametrize(
    "text",
    [
        "👨\u200d👩\u200d👧",
        "❤️\u200d🔥",
        "👍🏽",
        "1️⃣",
        "क्\u200dष",
        "می\u200cخواهم",
        "a\nb",
        "\u0600۱",
        "葛\U000e0100",
    ],
)
def test_joiners_and_selectors_that_shape_stay(text: str) -> None:
    assert hidden().findall(text) == []


@pytest.mark.parametrize(
    "character",
    [
        *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u061c", "\u180e"),
        *("\u202a", "\u202e", "\u2066", "\u2069", "\u2028", "\u2029"),
        *("\x00", "\t", "\r", "\x1b", "\x7f", "\x85", "\ue000", "\U000f0000", "\U0010fffd"),
        *("\ufff9", "\ufffe", "\u0378", "\U000e0001", "\U000e0041", "\U000e007f", "\ud800"),
        *("\u3164", "\u115f", "\u034f", "\ufe0f", "\U000e0100"),
    ],
)
def test_what_hides_is_found_behind_latin_letters(character: str) -> None:
    assert hidden().findall(f"ab{character}c") == [character]


def test_a_message_in_tags_or_selectors_behind_an_emoji_is_found() -> None:
    tags = "".join(chr(0xE0000 + ord(c)) for c in "obey")
    assert "".join(hidden().findall(f"🏴{tags}")) == tags
    selectors = "".join(chr(0xE0100 + ord(c)) for c in "obey")
    assert "".join(hidden().findall(f"😀{selectors}")) == selectors[1:]
    assert hidden().findall("👩\u200d\u200d\u200d🔬") == ["\u200d", "\u200d"]
