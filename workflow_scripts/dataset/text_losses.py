"""What of the text that was given the models did not read, and why: numbers, and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

LEFT_OUT, CUT, SHORT = 0.05, 0.2, 0.1
"""Shares of documents, text and tokens above which a reader of the answer must know."""
REASONS = 3
"""Reasons that a sentence gives, the most frequent ones."""


@dataclass(frozen=True)
class TextLosses:
    """What became of a run's text.

    ``left_out`` counts documents by reason; repeated documents, which are read once, are apart.
    Shares are of the documents that were drawn, of the tokens of those that were read, and of the
    tokens that were asked for. ``warning`` is empty where little is lost.
    """

    documents: int
    tokens: int
    tokens_wanted: int
    left_out: dict[str, int]
    repeated: int
    share_left_out: float
    share_cut: float
    share_short: float
    warning: str
    description: str


def text_losses(manifest: Mapping[str, Any]) -> TextLosses:
    """Return what was lost, from the manifest of a run's text (``describe_text``)."""
    sources, tokens = manifest["documents"]["sources"].values(), manifest["tokens"]
    drawn = Counter[str]()
    for source in sources:
        drawn += Counter(source["bad_rows"])
        drawn["empty"] += source["empty"]
    drawn += Counter()
    dropped = Counter[str](tokens["dropped"])
    rows = sum(source["documents"] for source in sources) + drawn.total()
    kept = (1 - drawn.total() / max(rows, 1)) * (1 - dropped.total() / max(tokens["read"], 1))
    cut = 1 - tokens["tokens"] / max(tokens["tokens_whole"], 1)
    short = max(0.0, 1 - tokens["tokens"] / tokens["tokens_wanted"]) if tokens["short"] else 0.0
    left_out = dict((drawn + dropped).most_common())
    told = {
        "left_out": f"{1 - kept:.0%} of the documents were left out ({_listed(left_out)})",
        "cut": f"{cut:.0%} of the documents' tokens were cut off",
        "short": f"there were {tokens['tokens']:,} of the {tokens['tokens_wanted']:,} tokens "
        "asked for",
    }
    grave = {"left_out": 1 - kept > LEFT_OUT, "cut": cut > CUT, "short": short > SHORT}
    repeated = sum(source["duplicates"] for source in sources)
    return TextLosses(
        tokens["documents"], tokens["tokens"], tokens["tokens_wanted"],
        left_out, repeated, 1 - kept, cut, short,
        _warning([told[k] for k, is_so in grave.items() if is_so], grave, manifest),
        f"{tokens['documents']:,} documents read, in {tokens['rows']:,} rows of "
        f"{tokens['tokens']:,} tokens; {sum(left_out.values()):,} left out"
        f"{f' ({_listed(left_out)})' if left_out else ''}, {repeated:,} repeated ones read once; "
        f"{cut:.0%} of the documents' tokens cut off",
    )  # fmt: skip


def _listed(reasons: Mapping[str, int]) -> str:
    shown = [f"{reason}: {count:,}" for reason, count in list(reasons.items())[:REASONS]]
    rest = sum(list(reasons.values())[REASONS:])
    return "; ".join([*shown, *([f"other reasons: {rest:,}"] if rest else [])])


def _warning(parts: list[str], grave: Mapping[str, bool], manifest: Mapping[str, Any]) -> str:
    """Return the sentence of what is lost, with the setting that helps most."""
    if not parts:
        return ""
    sources, tokens = manifest["documents"]["sources"].values(), manifest["tokens"]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    remedy = ""
    if grave["short"] and not all(source["exhausted"] for source in sources):
        drawn = manifest["documents"]["tokens_estimated"] / tokens["tokens"]
        remedy = f" (text.reserve: {ceil(10 * drawn - 8) / 10} would draw more of it)"
    elif grave["short"] and grave["cut"]:
        rows = ceil(tokens["rows_per_document"] * tokens["tokens_wanted"] / tokens["tokens"])
        remedy = f" (text.rows_per_document: {rows} would read more of each document)"
    elif grave["short"]:
        remedy = " (give more text)"
    elif grave["cut"]:
        remedy = " (text.context_length or text.rows_per_document would read more of them)"
    return f"Not all of the text was read: {listed}{remedy}."
