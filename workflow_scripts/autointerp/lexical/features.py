"""What the lexical annotator can name in a window: words, neighbours, and forms of words.

Shapes: W windows, F features of one channel.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from workflow_scripts.autointerp.windows import NEWLINE, Words, largest_by_window
from workflow_scripts.common.characters import JOINERS, is_mark

Numbers = NDArray[np.integer[Any]]

CHANNELS = ("word", "context", "form")
"""The word that activates; any word of the window; a suffix, prefix, shape or place."""

_ROLES = {1: "system turn", 2: "user turn", 3: "assistant turn"}
_TURN_START_TOKENS = 3
SORTED_ROWS = 1 << 13
"""TokenWindows whose features are sorted at once."""


@dataclass(frozen=True)
class Channel:
    """Features of one channel over all windows."""

    names: list[str]
    presence: sp.csr_array
    """[W, F] 1 where the feature occurs in the window."""
    weight: sp.csr_array
    """[W, F] same cells: the feature's largest activation (context: the window's)."""
    background: NDArray[np.float64]
    """[F] count of the feature in the background windows."""


def build_channels(words: Words, windows: int, background_windows: int) -> dict[str, Channel]:
    """Return the channels over ``windows`` windows, of which the first are background."""
    occurrence, feature, names = _whole(words)
    activation = words.activation[occurrence]
    # A pair is active where both of its characters are: else it is one of them that activates.
    first = np.flatnonzero(words.pair >= 0)
    both = np.minimum(words.activation[first], words.activation[first + 1])
    activation[len(words.word) :] = np.tile(both, 2)
    word = _channel(words, occurrence, feature, activation, names, windows, background_windows)
    forms = _forms(words)
    active = words.activation[forms[0]]
    form = _channel(words, *forms[:2], active, forms[2], windows, background_windows)
    context = _context_channel(words, word, windows, background_windows)
    return {"word": word, "context": context, "form": form}


def feature_pairs(words: Words, channel: str) -> tuple[Numbers, Numbers]:
    """Return pairs of an occurrence and a feature of a channel that its word carries.

    The features are numbered as in :func:`build_channels` for any part of the occurrences, since
    their numbers depend on the distinct words alone.
    """
    occurrence, feature, _ = _forms(words) if channel == "form" else _whole(words)
    return occurrence, feature


def _whole(words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Return (occurrence, feature) pairs of the word channel, and the features' names.

    Both characters of a pair carry it.
    """
    names = sorted({*words.lower, *words.pairs})
    number = {word: i for i, word in enumerate(names)}
    word = np.array([number[word] for word in words.lower], np.int64)[words.word]
    first = np.flatnonzero(words.pair >= 0)
    pair = np.array([number[pair] for pair in words.pairs], np.int64)[words.pair[first]]
    occurrence = np.concatenate([np.arange(len(word)), first, first + 1])
    return occurrence, np.concatenate([word, pair, pair]), names


def _channel(
    words: Words,
    occurrence: Numbers,
    feature: Numbers,
    activation: NDArray[np.float32],
    names: list[str],
    windows: int,
    background_windows: int,
) -> Channel:
    """Return the channel of features at occurrences of words, each with its activation there."""
    window = words.window[occurrence].astype(np.int32)
    weight = _largest(window, feature, activation, (windows, len(names)))
    presence = _same_cells(weight, np.ones_like(weight.data))
    counts = np.bincount(feature[window < background_windows], minlength=len(names))
    return Channel(names, presence, weight, counts.astype(np.float64))


def _context_channel(words: Words, word: Channel, windows: int, background_windows: int) -> Channel:
    """Return the word channel with each word as active as its window, counted once in each."""
    peak = largest_by_window(words.window, words.activation, windows)
    weight = _same_cells(word.weight, np.repeat(peak, np.diff(word.weight.indptr)))
    counts = np.asarray(word.presence[:background_windows].sum(axis=0)).ravel()
    return Channel(word.names, word.presence, weight, counts.astype(np.float64))


def _same_cells(table: sp.csr_array, data: NDArray[np.float64]) -> sp.csr_array:
    return sp.csr_array((data, table.indices, table.indptr), shape=table.shape)


def _largest(
    row: Numbers,
    column: Numbers,
    value: NDArray[np.float32],
    shape: tuple[int, int],
) -> sp.csr_array:
    """Return the sparse matrix of the largest value per cell, explicit zeros kept."""
    if not len(row):
        return sp.csr_array(shape, dtype=np.float64)
    parts = []
    # Some rows at a time, since sorting takes several times the memory of what is sorted.
    for first in range(0, shape[0], SORTED_ROWS):
        size = min(SORTED_ROWS, shape[0] - first)
        inside = (row >= first) & (row < first + size)
        rows = row[inside].astype(np.int64) - first
        parts.append(_largest_of_some(rows, column[inside], value[inside], (size, shape[1])))
    return sp.csr_array(sp.vstack(parts, format="csr"))


def _largest_of_some(
    row: NDArray[np.int64],
    column: Numbers,
    value: NDArray[np.float32],
    shape: tuple[int, int],
) -> sp.csr_array:
    key = row * shape[1] + column
    order = np.argsort(key)
    ordered = key[order]
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    cells = ordered[start]
    data = np.zeros(0, np.float32)
    if len(start):
        data = np.maximum.reduceat(value[order], start)
    rows = cells // shape[1]
    pointer = np.searchsorted(rows, np.arange(shape[0] + 1))
    return sp.csr_array((data.astype(np.float64), cells % shape[1], pointer), shape=shape)


def _forms(words: Words) -> tuple[Numbers, Numbers, list[str]]:
    """Return (occurrence, feature) pairs of the form channel, and the features' names."""
    table = [word_forms(word) for word in words.surface]
    names: dict[str, int] = {}
    flat = [names.setdefault(form, len(names)) for forms in table for form in forms]
    counts = np.array([len(forms) for forms in table], np.int64)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    repeats = counts[words.word] if len(words.word) else np.zeros(0, np.int64)
    # Of an occurrence's forms, the k-th of all stands at k + shift in ``flat``.
    shift = start[words.word] - (np.cumsum(repeats) - repeats)
    occurrence = [np.repeat(np.arange(len(words.word), dtype=np.int32), repeats)]
    place = np.repeat(shift, repeats)
    place += np.arange(len(place))
    feature = [np.array(flat, np.int32)[place]]
    for mask, name in _places(words):
        hits = np.flatnonzero(mask).astype(np.int32)
        occurrence.append(hits)
        feature.append(np.full(len(hits), names.setdefault(name, len(names)), np.int32))
    return np.concatenate(occurrence), np.concatenate(feature), list(names)


def _places(words: Words) -> Iterable[tuple[NDArray[np.bool_], str]]:
    """Yield masks over occurrences: template tokens, roles, the first words of a turn."""
    yield words.template, "chat template token"
    for role, name in _ROLES.items():
        inside = (words.role == role) & ~words.template
        yield inside, name
        opened = np.zeros(len(inside), np.bool_)
        for back in range(1, _TURN_START_TOKENS + 1):
            opened[back:] |= words.template[:-back] & (words.window[back:] == words.window[:-back])
        yield inside & opened, f"start of {name}"


def word_forms(word: str) -> tuple[str, ...]:
    """Return the names of the forms of one word as written: affixes, shape, script."""
    if word == NEWLINE:
        return ("line break",)
    if word.isalpha() and word.isascii():
        return (*_affixes(word.lower()), *_case(word))
    if word.isdigit():
        return ("number", f"{min(len(word), 5)}-digit number")
    letters = [c for c in word if not is_mark(c) and c not in JOINERS]
    if "".join(letters).isalpha():
        return (f"{_script(word)} script",)
    if any(character.isalnum() for character in word):
        return ("word with digits or signs",)
    # Of other signs, such as emoji, a part is another sign.
    return ("punctuation", f"sign {word[:4] if word.isascii() else word}")


def _affixes(word: str) -> Iterable[str]:
    for size in (2, 3, 4):
        if len(word) >= size + 3:
            yield f"-{word[-size:]}"
    for size in (2, 3):
        if len(word) >= size + 4:
            yield f"{word[:size]}-"


def _case(word: str) -> Iterable[str]:
    if len(word) > 1 and word.isupper():
        yield "word in capitals"
    elif word[0].isupper():
        yield "capitalised word"


def _script(word: str) -> str:
    name = unicodedata.name(word[0], "OTHER").split()[0].lower()
    return "accented latin" if name == "latin" else name
