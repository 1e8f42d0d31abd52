"""Match windows against the taxonomy's lexicons, and weigh the evidence for each category.

Shapes: W windows, E lexicon entries, C categories, L latents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from workflow_scripts.autointerp.windows import TokenWindows, Words
from workflow_scripts.common.characters import JOINERS, is_mark, is_unspaced
from workflow_scripts.common.detectors import TEXT_DETECTORS
from workflow_scripts.common.taxonomy import Category, Taxonomy

WORD_WEIGHT = 1.0
STRONG_WEIGHT = 2.0
"""Weight of a phrase, a pattern or a detector."""
SATURATION = 2.0
COMMON_SHARE = 0.05
"""Entries in more than this share of background windows lose weight with their logarithm."""


@dataclass(frozen=True)
class Matches:
    """Which lexicon entries occur in which windows."""

    hits: sp.csr_array
    """[W, E] 1 where entry e occurs in window w."""
    category: NDArray[np.int64]
    """[E] index of the entry's category."""
    weight: NDArray[np.float64]
    """[E] before the discount of common entries."""
    names: list[str]


def match(
    windows: TokenWindows, words: Words, taxonomy: Taxonomy, chosen: NDArray[np.bool_]
) -> Matches:
    """Match all lexicon entries; regular expressions and detectors only in ``chosen`` windows."""
    matcher = _Matcher(windows, words)
    for index, category in enumerate(taxonomy.categories):
        matcher.add_words(index, category)
        matcher.add_phrases(index, category)
    matcher.add_text_tests(taxonomy, chosen)
    return matcher.result()


class _Matcher:
    """Collects (window, entry) pairs from the kinds of lexicon entries."""

    def __init__(self, windows: TokenWindows, words: Words) -> None:
        self.windows = windows
        self.words = words
        self.rows: list[NDArray[np.int64]] = []
        self.columns: list[NDArray[np.int64]] = []
        self.category: list[int] = []
        self.weight: list[float] = []
        self.names: list[str] = []
        self.allowed = {
            "any": np.ones(len(words.word), np.bool_),
            "chat": words.role > 0,
            "plain": words.role == 0,
        }
        self.number: dict[str, int] = {}
        lower = np.array([self.number.setdefault(w, len(self.number)) for w in words.lower])
        self.lower = lower[words.word] if len(words.word) else np.zeros(0, np.int64)
        self.grams = _Grams(self.lower, words)

    def add_words(self, index: int, category: Category) -> None:
        allowed = self.allowed[category.register_]
        wanted = {
            self.number[word]: word
            for word in dict.fromkeys(category.lexicon.words)
            if word in self.number and not _without_blanks(word)
        }
        entry = np.full(len(self.number), -1, np.int64)
        for number, word in wanted.items():
            entry[number] = self._entry(index, WORD_WEIGHT, word)
        matched = entry[self.lower] if len(self.number) else np.zeros(0, np.int64)
        keep = (matched >= 0) & allowed
        self._pairs(self.words.window[keep], matched[keep])

    def add_phrases(self, index: int, category: Category) -> None:
        allowed = self.allowed[category.register_]
        for phrase in dict.fromkeys(category.lexicon.phrases):
            parts = [self.number.get(part, -1) for part in _split(phrase)]
            if parts and min(parts) >= 0 and not _without_blanks(phrase):
                hits = self.grams.find(parts)
                hits = hits[allowed[hits]]
                if len(hits):
                    entry = self._entry(index, STRONG_WEIGHT, phrase)
                    self._pairs(self.words.window[hits], np.full(len(hits), entry))

    def add_text_tests(self, taxonomy: Taxonomy, chosen: NDArray[np.bool_]) -> None:
        texts: dict[str, list[int]] = {}
        for window in np.flatnonzero(chosen):
            texts.setdefault(self.windows.text(int(window)), []).append(int(window))
        chat = self._chat_windows()
        for index, category in enumerate(taxonomy.categories):
            for name, weight, test in _text_tests(category):
                matching = [w for text, where in texts.items() if test(text) for w in where]
                rows = np.array(matching, np.int64)
                if category.register_ != "any" and len(rows):
                    rows = rows[chat[rows] == (category.register_ == "chat")]
                if len(rows):
                    entry = self._entry(index, weight, name)
                    self._pairs(rows, np.full(len(rows), entry))

    def _chat_windows(self) -> NDArray[np.bool_]:
        size = len(self.windows)
        spoken = np.bincount(self.windows.window_of_token, self.windows.role > 0, size)
        chat: NDArray[np.bool_] = spoken * 2 > np.diff(self.windows.offsets)
        return chat

    def _entry(self, category: int, weight: float, name: str) -> int:
        self.category.append(category)
        self.weight.append(weight)
        self.names.append(name)
        return len(self.category) - 1

    def _pairs(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        self.rows.append(rows)
        self.columns.append(columns)

    def result(self) -> Matches:
        row = np.concatenate([np.zeros(0, np.int64), *self.rows])
        column = np.concatenate([np.zeros(0, np.int64), *self.columns])
        shape = (len(self.windows), len(self.category))
        hits = sp.csr_array((np.ones(len(row)), (row, column)), shape=shape)
        hits.sum_duplicates()
        hits.data[:] = 1.0
        return Matches(hits, np.array(self.category, np.int64), np.array(self.weight), self.names)


def _text_tests(category: Category) -> Iterator[tuple[str, float, Callable[[str], object]]]:
    """Yield name, weight and test of each entry that is looked for in the text of a window."""
    lexicon = category.lexicon
    for pattern in lexicon.patterns:
        yield pattern, STRONG_WEIGHT, re.compile(pattern).search
    for name in lexicon.detectors:
        if name in TEXT_DETECTORS:
            yield name, STRONG_WEIGHT, TEXT_DETECTORS[name]
    for entries, weight in ((lexicon.words, WORD_WEIGHT), (lexicon.phrases, STRONG_WEIGHT)):
        for entry in filter(_without_blanks, dict.fromkeys(entries)):
            yield entry, weight, re.compile(re.escape(entry), re.IGNORECASE).search


def _without_blanks(entry: str) -> bool:
    """Whether an entry is of a script without blanks, where tokens need not begin at words."""
    return any(map(is_unspaced, entry))


def _split(phrase: str) -> list[str]:
    """Return the words of a phrase as :func:`merge_words` has them, without punctuation."""
    inner = ("'", *JOINERS)
    lower = phrase.lower().replace("’", "'")
    kept = "".join(c if c.isalnum() or is_mark(c) or c in inner else " " for c in lower)
    return [word for word in (part.strip("'") for part in kept.split()) if word]


class _Grams:
    """Finds runs of words; punctuation between the words is skipped."""

    def __init__(self, lower: NDArray[np.int64], words: Words) -> None:
        spoken = np.array([any(c.isalnum() for c in word) for word in words.lower], np.bool_)
        self.place = np.flatnonzero(spoken[words.word]) if len(words.word) else words.word
        self.id = lower[self.place]
        self.window = words.window[self.place]
        order = np.argsort(self.id, kind="stable")
        self._sorted, self._order = self.id[order], order

    def find(self, parts: list[int]) -> NDArray[np.int64]:
        """Return the occurrences (indices into the words) at which the run ``parts`` begins."""
        low, high = np.searchsorted(self._sorted, [parts[0], parts[0] + 1])
        at = self._order[low:high]
        for step, part in enumerate(parts[1:], start=1):
            at = at[at + step < len(self.id)]
            at = at[(self.id[at + step] == part) & (self.window[at + step] == self.window[at])]
        places: NDArray[np.int64] = self.place[np.sort(at)]
        return places


def window_evidence(matches: Matches, categories: int, background: int) -> NDArray[np.float64]:
    """Return [W, C] in [0, 1): 1 - exp(-weight of the entries of c found in w / SATURATION).

    An entry that occurs in more than ``COMMON_SHARE`` of the ``background`` first windows counts
    for less, in proportion to the logarithm of its rarity.
    """
    count = np.asarray(matches.hits[:background].sum(axis=0)).ravel()
    share = (count + 0.5) / (background + 1.0)
    rarity = np.minimum(1.0, np.log(share) / np.log(COMMON_SHARE))
    shape = (len(matches.category), categories)
    cells = (np.arange(len(matches.category)), matches.category)
    spread = sp.csr_array((matches.weight * rarity, cells), shape=shape)
    total = np.asarray((matches.hits @ spread).todense())
    evidence: NDArray[np.float64] = 1.0 - np.exp(-total / SATURATION)
    return evidence
