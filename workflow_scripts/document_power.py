"""Write the table of docs/choosing.md: ``python -m workflow_scripts.document_power``.

It says which changes Fisher's exact test can call at all, by the number of unique latents. A test
fails when the file and the code differ.
"""

from __future__ import annotations

import math
import re

from workflow_scripts.comparison.statistics import detectable_change
from workflow_scripts.provenance import ROOT

TARGET = ROOT / "docs" / "choosing.md"
START, END = "<!-- power -->\n", "<!-- /power -->"
TOTALS = (50, 100, 200, 400, 800)
SHARES = (0.02, 0.05, 0.1, 0.2)


def document_power() -> str:
    """Return the text of docs/choosing.md with its table written anew."""
    header = " | ".join(f"{100 * share:.0f} % of them" for share in SHARES)
    lines = [f"| unique latents a side | {header} |", "|---" * (len(SHARES) + 1) + "|"]
    for total in TOTALS:
        cells = [told(*detectable_change(round(total * s), total, total)) for s in SHARES]
        lines.append(f"| {total} | {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    text = TARGET.read_text(encoding="utf-8")
    return re.sub(f"{START}.*?{END}", f"{START}{table}{END}", text, flags=re.DOTALL)


def told(down: float, up: float) -> str:
    """Return the least drop and the least rise that can be called."""
    lower = "never" if math.isnan(down) else f"−{-down:.0f} %"
    upper = "never" if math.isnan(up) else f"+{up:.0f} %"
    return f"{lower} / {upper}"


def main() -> int:
    """Write the file."""
    TARGET.write_text(document_power(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
