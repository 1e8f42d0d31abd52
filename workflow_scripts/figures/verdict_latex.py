"""The verdicts as a LaTeX table, for a paper's appendix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from workflow_scripts.common.characters import hidden
from workflow_scripts.figures.verdict_table import Line

SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "…": r"\dots{}",
    "−": "$-$",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}
"""Signs that mean something in LaTeX, or that its usual fonts lack."""
SPECIAL = re.compile("|".join(map(re.escape, SIGNS)))
HEADER = ("category", "verdict", "behaviour, nats per token", "representation", "documents")


def latex(lines: Sequence[Line], answer: Mapping[str, Any]) -> str:
    """Return the table as LaTeX; it needs the package booktabs."""
    rows = [
        (
            line.label,
            line.verdict,
            _estimate(line.behaviour),
            _estimate(line.representation),
            line.documents,
        )
        for line in lines
    ]
    body = "\n".join(" & ".join(map(plain_latex, row)) + r" \\" for row in (HEADER, *rows))
    head, _, rest = body.partition("\n")
    baseline, candidate = (plain_latex(answer[side]) for side in ("baseline", "candidate"))
    caption = (
        f"What changed from {baseline} to {candidate}, by category: by how much better {candidate} "
        "predicts the text, and how much further apart the activations are than on unchanged text, "
        r"with 95\,\% intervals over documents."
    )
    parts = [
        r"% needs \usepackage{booktabs, textcomp}, and T1 or Unicode fonts",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        head,
        r"\midrule",
        *([rest] if rest else []),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(parts) + "\n"


def _estimate(estimate: tuple[str, str]) -> str:
    value, bounds = estimate
    return f"{value} ({bounds})" if bounds else value


def plain_latex(value: object) -> str:
    """Return a value as text that LaTeX sets as it is, on one line."""
    text = hidden().sub(lambda match: f"U+{ord(match[0]):04X}", " ".join(str(value).split()))
    return SPECIAL.sub(lambda match: SIGNS[match[0]], text)
