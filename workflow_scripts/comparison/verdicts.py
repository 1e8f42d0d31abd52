"""The rule that turns the effects on both axes into a verdict: a pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow_scripts.comparison.axes import Effect

GAINED, LOST = "gained", "lost"
USED = "used differently"
MOVED = "moved"
UNCHANGED = "unchanged"
CANNOT_TELL = "cannot tell"
VERDICTS = (GAINED, LOST, USED, MOVED, UNCHANGED, CANNOT_TELL)
CHANGED = (GAINED, LOST, USED, MOVED)
"""Verdicts that call a change."""


def verdict(behaviour: Effect, representation: Effect) -> str:
    """Return the verdict on one label.

    - ``gained`` or ``lost``: behaviour changed, and so did representation as far as can be told;
      the direction is that of behaviour;
    - ``used differently``: behaviour changed, while a change of representation can be excluded;
    - ``moved``: representation alone;
    - ``unchanged``: no change was seen, and a relevant gap would have been;
    - ``cannot tell``: it might not have been, or there is a gap that only chance in training may
      explain, or the label has too few documents.
    """
    if behaviour.called and representation.excluded and not representation.called:
        return USED
    if behaviour.called:
        return GAINED if behaviour.interval.estimate > 0 else LOST
    if representation.called:
        return MOVED
    return UNCHANGED if behaviour.excluded else CANNOT_TELL
