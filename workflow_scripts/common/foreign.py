"""What other libraries raise over a user's files, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from workflow_scripts.common.cli import UserError, first_line, is_full, shortened


@contextmanager
def one_sentence(problem: str, remedy: str) -> Iterator[None]:
    """Turn whatever a library raises in the block into ``problem (its reason): remedy``.

    For reading what users bring, of which libraries document few of their exceptions. The original
    is the cause of the :class:`UserError`, which a step's log shows.

    Raises
    ------
    UserError
        If the block raises anything but one, a full disk, or an interruption.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        if is_full(error):
            raise
        raise UserError(f"{problem} ({reason(error)}): {remedy}") from error


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, after its type where that is but a name."""
    text, kind = first_line(error).rstrip(". "), type(error).__name__
    if text.endswith(":"):  # what it announces is on the next line
        text = shortened(error)[:200]
    return text if " " in text else f"{kind}: {text}" if text != kind else kind
