"""How far a run of calls is, on a terminal and in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from workflow_scripts.autointerp.llm.budget import Amount
from workflow_scripts.autointerp.llm.sender import CallTally
from workflow_scripts.common import cli

LINE_SECONDS = 15.0


class Progress:
    """A bar on a terminal, a plain line every quarter of a minute elsewhere."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._started = time.monotonic()
        self._reported = self._started
        self._bar = tqdm(total=total, disable=not sys.stderr.isatty(), desc="requests")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, tally: CallTally, spent: Amount) -> None:
        """Show how far the run is."""
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.update(tally.done - self._bar.n)
            self._bar.set_postfix_str(self._text(tally, spent), refresh=False)
        elif now - self._reported >= LINE_SECONDS:
            self._reported = now
            rate = tally.done / max(now - self._started, 1e-9)
            left = (self.total - tally.done) / max(rate, 1e-9)
            cli.log(
                f"{tally.done}/{self.total} requests, {rate:.1f}/s, {left:.0f} s left, "
                + self._text(tally, spent)
            )

    def close(self, tally: CallTally, spent: Amount) -> None:
        """Log what the run did."""
        cli.log(f"{tally.done}/{self.total} requests, {self._text(tally, spent)}")

    def _text(self, tally: CallTally, spent: Amount) -> str:
        money = f", cost {spent.cost:.4f}" if spent.cost else ""
        return (
            f"{tally.cached} from the cache, {tally.sent} sent, {tally.retries} retried, "
            f"{tally.failed} failed, {spent.input} + {spent.output} tokens{money}"
        )
