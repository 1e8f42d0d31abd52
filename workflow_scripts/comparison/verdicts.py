"""The rules that turn evidence into verdicts: pure functions, separate from the statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

GAINED, LOST = "gained", "lost"
UNCLEAR = "changed, direction unclear"
UNCHANGED = "unchanged"
TOO_FEW = "too few latents"
VERDICTS = (GAINED, LOST, UNCLEAR, UNCHANGED, TOO_FEW)


@dataclass(frozen=True)
class Vote:
    """One statistic's vote on the direction: its sign, and whether its interval excludes 0."""

    sign: int
    clear: bool


def direction(votes: Sequence[Vote]) -> int:
    """Return +1 (gained), -1 (lost) or 0 (unclear) from the votes on direction.

    1. Votes whose interval excludes "no change" decide alone: their common sign, or 0 when they
       contradict each other.
    2. Without such a vote, a sign that at least two votes have, and more than have the other.
    3. Otherwise 0.
    """
    clear = {vote.sign for vote in votes if vote.clear and vote.sign}
    if clear:
        return clear.pop() if len(clear) == 1 else 0
    up = sum(vote.sign > 0 for vote in votes)
    down = sum(vote.sign < 0 for vote in votes)
    if max(up, down) < 2 or up == down:
        return 0
    return 1 if up > down else -1


def verdict(q: float, fdr: float, latents: float, least_latents: int, sign: int) -> str:
    """Return the verdict on one category.

    - ``too few latents``: fewer than ``least_latents`` labelled latents carry the category, or
      there is nothing to test against (q is NaN): no reference, or a side without unique latents;
    - ``unchanged``: the test of detection has q above ``fdr`` (no change beyond chance);
    - otherwise by the direction: ``gained``, ``lost``, or ``changed, direction unclear``.

    Detection is the one-sided exact test of the direct share when both sides lie in one
    crosscoder, else Fisher's two-sided test of the anchored counts, whose sign is the direction.
    """
    if latents < least_latents or math.isnan(q):
        return TOO_FEW
    if q > fdr:
        return UNCHANGED
    return {1: GAINED, -1: LOST}.get(sign, UNCLEAR)
