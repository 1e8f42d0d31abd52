"""The order in which a split that is larger than memory is shuffled: blocks, pools, batches.

The split is cut into blocks of neighbouring tokens, blocks are distributed over pools that fit
into memory, and a pool's tokens over its batches. Everything random follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pool = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Batches [n, batch] as places in the pool's sorted tokens, and these tokens."""


@dataclass(frozen=True)
class Pools:
    """Deals the tokens of a split, those of ``code`` [N] that equal ``number``."""

    code: NDArray[np.uint8]
    number: int
    size: int
    """Tokens that a pool has room for, at least a batch."""
    batch: int
    blocks: NDArray[np.int64]
    """(first token, last token + 1, usable tokens) of each block, [n, 3]."""

    @classmethod
    def of(
        cls,
        code: NDArray[np.uint8],
        number: int,
        size: int,
        batch: int,
        shards: Sequence[tuple[int, int, int]],
    ) -> Pools:
        """Cut ``shards``, (first token, last token + 1, rows per chunk) each, into blocks.

        A block is a part of a chunk or some whole ones, and a pool has room for as many blocks as a
        batch has tokens: so batches span many documents, however long these are.
        """
        size = max(size, batch)
        cut = [np.zeros((0, 3), dtype=np.int64)]
        for begin, end, chunk in shards:
            if begin == end:
                continue
            step = max(1, size // batch)
            span = max(chunk, step // chunk * chunk)
            within = np.arange(0, span, min(step, span))
            starts = np.add.outer(np.arange(0, end - begin, span), within).ravel()
            starts = starts[starts < end - begin]
            usable = (code[begin:end] == number).astype(np.int64)
            counts = np.add.reduceat(usable, starts)
            ends = np.append(starts[1:], end - begin)
            blocks = np.stack([starts + begin, ends + begin, counts], axis=1)
            cut.append(blocks[counts > 0])
        return cls(code, number, size, batch, np.concatenate(cut))

    def endless(self, seed: int, epoch: int, first: int) -> Iterator[Pool]:
        """Yield pools from an epoch's batch ``first`` on, without end."""
        while True:
            for places, rows in self.of_epoch([seed, epoch]):
                if first < len(places):
                    yield restricted(places[first:], rows)
                first = max(0, first - len(places))
            epoch += 1

    def of_epoch(self, seed: list[int]) -> Iterator[Pool]:
        """Yield each pool of an epoch.

        Of every P neighbouring blocks each of the P pools gets one, by chance; of every n
        neighbouring tokens of a pool each of its n batches gets one, by chance: a document of some
        length is in every pool and in every batch. What fills no batch goes to the next pool.
        """
        rng = np.random.default_rng(seed)
        blocks, batch = self.blocks, self.batch
        pools = -(-int(blocks[:, 2].sum()) // self.size)
        dealt = np.concatenate([rng.permutation(pools) for _ in range(-(-len(blocks) // pools))])
        left = np.zeros(0, dtype=np.int64)
        for pool in rng.permutation(pools):
            chosen = blocks[dealt[: len(blocks)] == pool]
            parts = [
                first + np.flatnonzero(self.code[first:last] == self.number)
                for first, last, _ in chosen
            ]
            rows = np.sort(np.concatenate([left, *parts]))
            count = len(rows) // batch
            kept = np.ones(len(rows), dtype=np.bool_)
            kept[rng.choice(len(rows), len(rows) - count * batch, replace=False)] = False
            left = rows[~kept]
            if count:
                strata = rng.permuted(np.arange(count * batch).reshape(batch, count), axis=1)
                yield rng.permuted(np.ascontiguousarray(strata.T), axis=1), rows[kept]


def restricted(places: NDArray[np.int64], rows: NDArray[np.int64]) -> Pool:
    """Return some of a pool's batches without the tokens that only others use."""
    if places.size == len(rows):
        return places, rows
    used = np.zeros(len(rows), dtype=np.bool_)
    used[places] = True
    return (np.cumsum(used) - 1)[places], rows[used]


def epochs(
    tokens: int, batch: int, seed: int, epoch: int, first: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the places of each epoch's batches, [batches, batch], of tokens shuffled as a whole."""
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(tokens)
        yield order[: tokens // batch * batch].reshape(-1, batch)[first:]
        epoch, first = epoch + 1, 0
