"""How many rows without a document a source may have before it is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.record_forms import DrawnDocument

SHARE = 0.01
LEAST = 3
"""Bad rows that any source may have."""
EARLY = 10
"""Bad rows that it may have before it is read to its end; then also chance counts: 3 sd."""
EXAMPLES = 3


@dataclass
class BadRows:
    """The bad rows of a source so far, and its setting ``bad_rows``."""

    source: str
    rule: Literal["stop", "skip"] | None
    bad: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, document: DrawnDocument, rows: int) -> None:
        """Count a bad row, the last of ``rows`` that were read.

        Raises
        ------
        UserError
            If there are too many.
        """
        self.bad += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{document.where} {document.problem}")
        if self.rule == "stop":
            raise UserError(f"source {self.source}: {self.examples[0]}")
        self._check(rows, max(EARLY, SHARE * rows + 3 * math.sqrt(SHARE * rows)))

    def finish(self, rows: int) -> None:
        """Refuse too many bad rows among the ``rows`` of a source that was read to its end.

        Raises
        ------
        UserError
            With examples; where no row is good, one sentence that says why.
        """
        if self.bad == rows and self.examples:
            raise UserError(f"source {self.source}: {self.examples[0]}")
        self._check(rows, max(LEAST, SHARE * rows))

    def _check(self, rows: int, most: float) -> None:
        if self.rule is not None or self.bad <= most:
            return
        if self.bad == rows:
            raise UserError(f"source {self.source}: {self.examples[0]}")
        raise UserError(
            f"source {self.source}: {self.bad:,} of {rows:,} rows hold no document, above the "
            f"{SHARE:.0%} that are skipped ({'; '.join(self.examples)}): fix them, or set the "
            "source's bad_rows to skip"
        )
