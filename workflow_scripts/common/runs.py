"""Runs of integers in a long array, such as the tokens of words."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def number_runs(values: NDArray[np.integer], starts: Numbers) -> tuple[Numbers, Numbers]:
    """Return a number for each run of ``values``, and which run is the first of each number.

    The runs are [start, next start). Equal ones have the same number, told by a hash of 64 bits.
    """
    lengths = np.diff(np.append(starts, len(values)))
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    number, _ = pd.factorize(np.add.reduceat(_mix(values, place), starts))
    first = np.flatnonzero(np.diff(np.maximum.accumulate(number), prepend=-1))
    return number.astype(np.int64), first


def _mix(value: NDArray[np.integer], place: Numbers) -> NDArray[np.uint64]:
    """Hash (value, place in the run) to 64 bits (the finaliser of SplitMix64)."""
    x = value.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x += (place.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed
