"""Pieces are merged into the words that hold them."""

from __future__ import annotations

import pyarrow as pa

from workflow_scripts.autointerp.lexical.features import feature_pairs, word_forms
from workflow_scripts.autointerp.windows import NEWLINE, join_windows, merge_words, read_windows


def _table(*windows: list[tuple[str, float]], template: tuple[str, ...] = ()) -> pa.Table:
    return pa.table(
        {
            "pieces": [[piece for piece, _ in window] for window in windows],
            "activations": [[value for _, value in window] for window in windows],
            "template": [[piece in template for piece, _ in window] for window in windows],
            "role": [[0 for _ in window] for window in windows],
        }
    )


def _spoken(table: pa.Table) -> list[tuple[str, float]]:
    words = merge_words(read_windows(table))
    return [
        (words.surface[i], round(float(a), 3))
        for i, a in zip(words.word, words.activation, strict=True)
    ]


def test_subwords_join_and_take_the_largest_activation() -> None:
    table = _table([("The", 0), (" un", 0.2), ("believ", 0.9), ("able", 0.1), (" cat", 0)])
    assert _spoken(table) == [("The", 0.0), ("unbelievable", 0.9), ("cat", 0.0)]


def test_apostrophes_join_and_quotes_fall_away() -> None:
    table = _table([("I", 0), ("'m", 0), (" don", 0), ("'", 0), ("t", 0), (" '", 0), ("yes", 0)])
    assert [word for word, _ in _spoken(table)] == ["I'm", "don't", "yes"]


def test_punctuation_newlines_and_other_scripts_stand_alone() -> None:
    table = _table([("Hi", 0), (",", 0), ("\n", 0), ("  ", 0), ("日", 0), ("本", 0), ("語", 0)])
    assert [word for word, _ in _spoken(table)] == ["Hi", ",", NEWLINE, "日", "本", "語"]


def test_template_tokens_never_join() -> None:
    table = _table([("<s>", 1), ("user", 0), ("Hi", 0)], template=("<s>", "user"))
    assert [word for word, _ in _spoken(table)] == ["<s>", "user", "Hi"]


def test_words_do_not_join_across_windows_and_joined_windows_keep_their_text() -> None:
    first, second = read_windows(_table([("ab", 0)])), read_windows(_table([("cd", 0), (" ab", 0)]))
    both = join_windows(first, second)
    assert [both.text(i) for i in range(len(both))] == ["ab", "cd ab"]
    words = merge_words(both)
    assert [words.surface[i] for i in words.word] == ["ab", "cd", "ab"]
    assert words.window.tolist() == [0, 1, 1]


def test_words_hold_their_vowel_signs_and_joiners() -> None:
    hindi = _table([("कि", 0), ("ता", 0.5), ("ब", 0), (" हि", 0), ("न्दी", 0), ("।", 0)])
    assert [word for word, _ in _spoken(hindi)] == ["किताब", "हिन्दी", "।"]
    persian = _table([("می\u200c", 0), ("خوا", 0), ("هم", 0)])
    assert [word for word, _ in _spoken(persian)] == ["می\u200cخواهم"]


def test_single_characters_of_scripts_without_blanks_are_also_paired() -> None:
    table = _table(
        [("税", 0.5), ("款", 0), ("我们", 0), ("花", 0), ("x", 0), ("น้ำ", 0), ("ทำ", 0)],
        [("花", 0), (" ", 0), ("园", 0)],
    )
    words = merge_words(read_windows(table))
    pairs = [words.pairs[i] if i >= 0 else "" for i in words.pair]
    assert pairs == ["税款", "", "", "", "", "น้ำทำ", "", "", ""]
    occurrence, feature = feature_pairs(words, "word")
    names = sorted({*words.lower, *words.pairs})
    carried = [names[f] for o, f in zip(occurrence, feature, strict=True) if o == 1]
    assert carried == ["款", "税款"]


def test_no_windows_give_no_words() -> None:
    empty = _table([("a", 0)]).slice(0, 0)
    assert len(merge_words(read_windows(empty)).word) == 0


def test_forms_of_words() -> None:
    assert "-ing" in word_forms("walking")
    assert "capitalised word" in word_forms("Paris")
    assert "word in capitals" in word_forms("NATO")
    assert word_forms("1984") == ("number", "4-digit number")
    assert word_forms("слово") == ("cyrillic script",)
    assert word_forms("किताब") == ("devanagari script",)
    assert word_forms("می\u200cخواهم") == ("arabic script",)
    family = "👨\u200d👩\u200d👧\u200d👦"
    assert word_forms(family) == ("punctuation", f"sign {family}")
    assert word_forms(NEWLINE) == ("line break",)
