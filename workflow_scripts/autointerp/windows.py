"""Windows of tokens as flat arrays, and their words.

A token is here a piece of ``examples.parquet``: tokens that share a character count as one.
Shapes: W windows, T tokens of all windows together, V distinct pieces, U distinct words,
O word occurrences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workflow_scripts.common.characters import (
    JOINERS,
    is_mark,
    is_one_character,
    is_unspaced,
)
from workflow_scripts.common.runs import Numbers, number_runs

NEWLINE = "⏎"
APOSTROPHES = ("'", "’")


@dataclass(frozen=True)
class TokenWindows:
    """W windows with T tokens in all; window w owns tokens ``offsets[w]:offsets[w + 1]``."""

    offsets: NDArray[np.int64]
    """[W + 1]"""
    piece: NDArray[np.int32]
    """[T] index into ``vocabulary``."""
    vocabulary: list[str]
    activation: NDArray[np.float32]
    """[T] relative to the latent's maximum; zero where the latent is silent."""
    template: NDArray[np.bool_]
    role: NDArray[np.uint8]
    """[T] 0 plain, 1 system, 2 user, 3 assistant."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def window_of_token(self) -> NDArray[np.int64]:
        """[T] number of the window that each token is in."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def text(self, window: int) -> str:
        """Return the text of one window."""
        start, stop = self.offsets[window], self.offsets[window + 1]
        return "".join(self.vocabulary[piece] for piece in self.piece[start:stop])


def read_windows(table: pa.Table) -> TokenWindows:
    """Flatten the list columns of a table of contexts; a missing column counts as zeros."""
    lengths = pc.list_value_length(table["pieces"]).to_numpy().astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    pieces = pc.list_flatten(table["pieces"])
    if not pa.types.is_dictionary(pieces.type):
        pieces = pieces.dictionary_encode()
    encoded = _single(pieces)
    total = int(offsets[-1])
    return TokenWindows(
        offsets=offsets,
        piece=encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        vocabulary=encoded.dictionary.to_pylist(),
        activation=_numbers(table, "activations", total).astype(np.float32),
        template=_numbers(table, "template", total).astype(np.bool_),
        role=_numbers(table, "role", total).astype(np.uint8),
    )


def _flat(table: pa.Table, column: str) -> pa.Array:
    return _single(pc.list_flatten(table[column]))


def _single(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(array, pa.ChunkedArray):
        return array
    return array.unify_dictionaries().combine_chunks()


def _numbers(table: pa.Table, column: str, total: int) -> NDArray[np.generic]:
    if column not in table.column_names:
        return np.zeros(total)
    values: NDArray[np.generic] = _flat(table, column).to_numpy(zero_copy_only=False)
    return values


def largest_by_window(
    window: NDArray[np.int64], values: NDArray[np.float32], windows: int
) -> NDArray[np.float64]:
    """Return [windows] the largest of the ``values`` of each, at least 0; ``window`` is sorted."""
    largest = np.zeros(windows)
    first = np.flatnonzero(np.diff(window, prepend=-1))
    if len(first):
        largest[window[first]] = np.maximum(np.maximum.reduceat(values, first), 0.0)
    return largest


@dataclass(frozen=True)
class Words:
    """The words of W windows: subword pieces merged into the words that contain them."""

    surface: list[str]
    """[U] distinct words as written; white space that breaks a line is ``⏎``."""
    lower: list[str]
    word: NDArray[np.int64]
    """[O] index into ``surface``."""
    window: NDArray[np.int64]
    activation: NDArray[np.float32]
    """[O] largest activation of the word's tokens."""
    template: NDArray[np.bool_]
    role: NDArray[np.uint8]
    first_token: NDArray[np.int64]
    tokens: NDArray[np.int64]
    """[O] how many tokens the word has, all in a row."""
    pairs: list[str]
    """Distinct pairs of neighbouring characters of scripts without blanks, in lower case."""
    pair: NDArray[np.int64]
    """[O] index into ``pairs`` of the word and the next one; -1 where they are no pair."""

    def within(self, windows: NDArray[np.bool_]) -> Words:
        """Return the words of some of the windows [W]; the distinct words stay as they are."""
        kept = np.flatnonzero(windows[self.window])
        each = ("word", "window", "activation", "template", "role", "first_token", "tokens", "pair")
        return replace(self, **{name: getattr(self, name)[kept] for name in each})


def merge_words(windows: TokenWindows) -> Words:
    """Merge the pieces of each word; blanks are dropped, each punctuation piece is a word.

    So is each piece of a script without blanks. Where it is a single character, it says little, so
    it also counts together with its neighbour.
    """
    starts = np.flatnonzero(_begins_word(windows))
    if not len(starts):
        empty = np.zeros(0, np.int64)
        return Words([], [], empty, empty, *_nothing(), empty, empty, [], empty)
    lengths = np.diff(np.append(starts, len(windows.piece)))
    inverse, first = number_runs(windows.piece, starts)
    spelling = [
        _normalise("".join(windows.vocabulary[p] for p in windows.piece[s : s + n]))
        for s, n in zip(starts[first], lengths[first], strict=True)
    ]
    surface = sorted(set(spelling) - {""})
    number = {word: i for i, word in enumerate(surface)}
    ids = np.array([number.get(word, -1) for word in spelling])[inverse]
    keep = ids >= 0
    window, first_token = windows.window_of_token[starts][keep], starts[keep].astype(np.int64)
    lower = [word.lower() for word in surface]
    pairs, pair = _pairs(
        lower, ids[keep], window, first_token + lengths[keep] == np.append(first_token[1:], -1)
    )
    return Words(
        surface=surface,
        lower=lower,
        word=ids[keep],
        window=window,
        activation=np.maximum.reduceat(windows.activation, starts)[keep],
        template=windows.template[starts][keep],
        role=windows.role[starts][keep],
        first_token=first_token,
        tokens=lengths[keep].astype(np.int64),
        pairs=pairs,
        pair=pair,
    )


def _pairs(
    lower: list[str], word: Numbers, window: Numbers, next_to: NDArray[np.bool_]
) -> tuple[list[str], Numbers]:
    """Return the distinct pairs of characters that are words, and the pair at each occurrence."""
    single = np.array([_is_character(text) for text in lower], np.bool_)[word]
    pair = np.full(len(word), -1, np.int64)
    at = np.flatnonzero(single[:-1] & single[1:] & next_to[:-1] & (window[1:] == window[:-1]))
    distinct, pair[at] = np.unique(word[at] * len(lower) + word[at + 1], return_inverse=True)
    return [lower[code // len(lower)] + lower[code % len(lower)] for code in distinct], pair


def _is_character(word: str) -> bool:
    """Whether a word is one character of a script without blanks."""
    return is_unspaced(word[0]) and all(map(is_one_character, word, word[1:]))


def _nothing() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]:
    return np.zeros(0, np.float32), np.zeros(0, np.bool_), np.zeros(0, np.uint8)


def _begins_word(windows: TokenWindows) -> NDArray[np.bool_]:
    opens = np.array([_joins(piece[:1]) for piece in windows.vocabulary], np.bool_)
    closes = np.array([_joins(piece[-1:]) for piece in windows.vocabulary], np.bool_)
    begins = np.ones(len(windows.piece), np.bool_)
    begins[1:] = ~(opens[windows.piece[1:]] & closes[windows.piece[:-1]])
    begins[1:] |= windows.template[1:] | windows.template[:-1]
    begins[windows.offsets[:-1][np.diff(windows.offsets) > 0]] = True
    return begins


def _joins(edge: str) -> bool:
    """Whether a piece with this edge character is glued to its neighbour's letters or digits."""
    if not edge:
        return False
    if is_unspaced(edge):
        return False
    return edge.isalnum() or is_mark(edge) or edge in "_�" or edge in (*APOSTROPHES, *JOINERS)


def _normalise(text: str) -> str:
    stripped = text.strip().replace("’", "'")
    stripped = stripped.strip("'") or stripped
    return stripped or (NEWLINE if "\n" in text else "")


def join_windows(first: TokenWindows, second: TokenWindows) -> TokenWindows:
    """Return the windows of both, ``first`` in front."""
    number = {piece: i for i, piece in enumerate(first.vocabulary)}
    moved = [number.setdefault(piece, len(number)) for piece in second.vocabulary]
    table = np.array(moved, np.int32)
    return TokenWindows(
        offsets=np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]]),
        piece=np.concatenate([first.piece, table[second.piece]]).astype(np.int32),
        vocabulary=list(number),
        activation=np.concatenate([first.activation, second.activation]),
        template=np.concatenate([first.template, second.template]),
        role=np.concatenate([first.role, second.role]),
    )
