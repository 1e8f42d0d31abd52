"""Near-duplicate contexts of a latent, by Jaccard similarity of word 5-grams."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from workflow_scripts.autointerp.windows import TokenWindows, Words, merge_words

SHINGLE = 5


def drop_near_duplicates(
    windows: TokenWindows,
    order: NDArray[np.int64],
    group: NDArray[np.int64],
    similarity: float,
) -> NDArray[np.int64]:
    """Return the windows of ``order`` that do not nearly repeat an earlier one of their group.

    ``group`` runs parallel to ``order`` and is sorted.
    """
    shingles = _shingles(merge_words(windows), len(windows))
    size = np.diff(shingles.indptr)
    kept: list[NDArray[np.int64]] = []
    bounds = np.flatnonzero(np.diff(group)) + 1
    for members in np.split(order, bounds):
        rows = shingles[members]
        common = sp.csr_array(rows @ rows.T).toarray()
        union = size[members][:, None] + size[members][None, :] - common
        alike = np.tril(common >= similarity * np.maximum(union, 1), k=-1)
        alone = ~alike.any(axis=1)
        for i in np.flatnonzero(~alone):
            alone[i] = not (alike[i] & alone).any()
        kept.append(members[alone])
    return np.concatenate([np.zeros(0, np.int64), *kept])


def _shingles(words: Words, windows: int) -> sp.csr_array:
    """Return [W, shingles] 1 where a window holds a run of five words (fewer in short windows)."""
    lower = sorted(set(words.lower))
    number = {word: i for i, word in enumerate(lower)}
    ids = np.array([number[word] for word in words.lower], np.uint64)[words.word]
    count = np.bincount(words.window, minlength=windows)
    start = np.cumsum(count) - count
    place = np.arange(len(ids)) - start[words.window] if len(ids) else np.zeros(0, np.int64)
    digest = np.zeros(len(ids), np.uint64)
    for step in range(SHINGLE):
        shifted = np.zeros(len(ids), np.uint64)
        shifted[: len(ids) - step] = ids[step:] + np.uint64(1)
        inside = place + step < count[words.window] if len(ids) else np.zeros(0, np.bool_)
        digest = digest * np.uint64(0x9E3779B97F4A7C15) + np.where(inside, shifted, np.uint64(0))
        digest ^= digest >> np.uint64(31)
    whole = (place + SHINGLE <= count[words.window]) | (place == 0)
    _, column = np.unique(digest[whole], return_inverse=True)
    row = words.window[whole]
    shape = (windows, int(column.max(initial=-1)) + 1)
    table = sp.csr_array((np.ones(len(row)), (row, column)), shape=shape)
    table.sum_duplicates()
    table.data[:] = 1.0
    return table
