"""Write the tables of docs/choosing.md: ``python -m workflow_scripts.tools.document_power``.

They say which changes Fisher's exact test can call at all, by the number of unique latents, and
what made-up counts as small as published ones show. A test fails when the file and the code differ.
"""

from __future__ import annotations

import math
import re

from workflow_scripts.common.provenance import ROOT
from workflow_scripts.common.statistics import detectable_change, fisher, percent_change

TARGET = ROOT / "docs" / "choosing.md"
START, END = "<!-- power -->\n", "<!-- /power -->"
EXAMPLE_START, EXAMPLE_END = "<!-- example -->\n", "<!-- /example -->"
EXAMPLE_TOTALS = (112, 89)
EXAMPLE = {
    "safety": (18, 19),
    "multilingual": (7, 8),
    "instruction following": (1, 2),
    "self reference": (9, 4),
    "hallucination": (4, 1),
}
TOTALS = (50, 100, 200, 400, 800)
SHARES = (0.02, 0.05, 0.1, 0.2)


def document_power() -> str:
    """Return the text of docs/choosing.md with its tables updated."""
    header = " | ".join(f"{100 * share:.0f} % of them" for share in SHARES)
    lines = [f"| unique latents per side | {header} |", "|---" * (len(SHARES) + 1) + "|"]
    for total in TOTALS:
        cells = [cell(*detectable_change(round(total * s), total, total)) for s in SHARES]
        lines.append(f"| {total} | {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    text = TARGET.read_text(encoding="utf-8")
    text = re.sub(f"{START}.*?{END}", f"{START}{table}{END}", text, flags=re.DOTALL)
    example = f"{EXAMPLE_START}{worked_example()}{EXAMPLE_END}"
    return re.sub(f"{EXAMPLE_START}.*?{EXAMPLE_END}", example, text, flags=re.DOTALL)


def worked_example() -> str:
    """Return the table of hypothetical counts: change of share, interval, exact test."""
    before, after = EXAMPLE_TOTALS
    lines = [
        f"| category | of {before} | of {after} | change of share | 95 % interval | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, (x, y) in EXAMPLE.items():
        change = percent_change(y, after, x, before)
        ends = " … ".join(signed(end) for end in (change.low, change.high))
        p = fisher(y, after, x, before)
        lines.append(f"| {name} | {x} | {y} | {signed(change.estimate, 1)} | {ends} | {p:.2f} |")
    return "\n".join(lines) + "\n"


def signed(percent: float, digits: int = 0) -> str:
    """Return a percentage with its sign."""
    return f"{percent:+.{digits}f} %".replace("-", "−")


def cell(down: float, up: float) -> str:
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
