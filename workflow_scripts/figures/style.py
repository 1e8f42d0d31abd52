"""One look for all figures, and how they are written: the same bytes on every run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import font_manager

from workflow_scripts.common import files
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labellers import LEXICAL, LLM, SOURCE, TOPICS, TRUE
from workflow_scripts.common.settings import Settings
from workflow_scripts.common.tables import write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinct with every common kind of colour blindness.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
GREY, LIGHT = "#7F7F7F", "#D9D9D9"
BASELINE, CANDIDATE = BLUE, VERMILION
LOOKS = {
    "gained": (VERMILION, "^"),
    "lost": (BLUE, "v"),
    "used differently": (PURPLE, "D"),
    "moved": (GREEN, "s"),
    "unchanged": (GREY, "o"),
    "cannot tell": (LIGHT, "X"),
}
"""Colour and marker of each verdict of ``changes.csv``, those that call a change first."""
MODELS = (GREEN, BLUE, VERMILION, PURPLE, ORANGE, SKY)
CLASSES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, "#8C564B", BLACK, YELLOW, GREY)

WATERMARK = "lexical labels, no LLM"

WIDTH = 6.8
"""Width of a figure in inches: a page's text width."""
THEME = "seaborn-v0_8-ticks"
"""Seaborn's theme as matplotlib brings it: to import seaborn takes longer than to plot."""
MINOR = {"size": 4.0, "width": 1.0}
RC = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "patch.edgecolor": "white",
    "patch.force_edgecolor": True,
    **{f"{axis}tick.major.width": 1.25 for axis in "xy"},
    **{f"{axis}tick.minor.{name}": value for axis in "xy" for name, value in MINOR.items()},
    "pdf.fonttype": 42,
    "svg.hashsalt": "diffscope",
}

OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Lohit Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Loma",
    "Noto Sans Arabic",
    "Noto Emoji",
)
"""Fonts for labels in scripts that DejaVu Sans lacks, where a system has them."""


class Output(Settings):
    """Where a figure goes: two pictures, and the tidy table that it shows."""

    png: Path
    """picture for screens"""
    pdf: Path
    """picture for print"""
    table: Path | None = None
    """tidy table of what is shown (CSV)"""


@cache
def families() -> list[str]:
    """Return the font of the figures, and those of the system for scripts that it lacks."""
    known = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in known)]


@contextmanager
def styled() -> Iterator[None]:
    """Apply the house style within the block, and close its figures at the end."""
    with plt.style.context([THEME, RC, {"font.family": families()}]):
        try:
            yield
        finally:
            plt.close("all")


def save(figure: Figure, table: pd.DataFrame, output: Output) -> None:
    """Write the figure as PNG and PDF without dates or version texts, and its table as CSV."""
    with files.atomic_path(output.png) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None}, bbox_inches="tight")
    with files.atomic_path(output.pdf) as temporary:
        nothing = {"CreationDate": None, "Producer": None, "Creator": None}
        figure.savefig(temporary, format="pdf", metadata=nothing, bbox_inches="tight")
    if output.table is not None:
        write_csv(output.table, table, missing="")


def colours(names: Sequence[str], palette: Sequence[str]) -> Mapping[str, str]:
    """Return a colour for each name, in order; after the last one they start again."""
    return {name: palette[i % len(palette)] for i, name in enumerate(dict.fromkeys(names))}


def model_colours(models: Sequence[str]) -> Mapping[str, str]:
    """Return the colours of models in the order of their fit."""
    if len(models) == 2:
        return dict(zip(models, (BASELINE, CANDIDATE), strict=True))
    return colours(models, MODELS)


def readable(name: str) -> str:
    """Return an identifier as words."""
    return name.replace("_", " ")


def signed(value: float) -> str:
    """Return a number of a few digits with a true minus sign."""
    return f"{value:g}".replace("-", "−")


WHOSE_LABELS = {
    TRUE: "true categories of the text",
    LEXICAL: "lexical, no LLM was used",
    SOURCE: "sources of the text",
    TOPICS: "topics found in the text",
    LLM: "given by an LLM",
}


def labels_note(labeller: str) -> str:
    """Say whose labels are shown, as every figure with categories must."""
    return f"labels: {whose_labels(labeller)}"


def whose_labels(labeller: str) -> str:
    """Return a labeller in words."""
    return WHOSE_LABELS.get(labeller, readable(labeller))


def note_labels(axes: Axes, labellers: Iterable[str]) -> None:
    """Say under the axes who named the latents shown; across the figure, if no LLM did.

    ``labellers`` are those of all rows in the figure, whose axes must all be there already.

    Raises
    ------
    UserError
        If there are several: their categories are not the same kind of thing.
    """
    names = sorted(set(labellers))
    if len(names) != 1:
        raise UserError(
            f"one series would mix labels by {' and by '.join(names) or 'nobody'}: choose one of "
            "them (--labeller)"
        )
    note(axes, labels_note(names[0]))
    figure = axes.get_figure(root=True)
    if names[0] == LEXICAL and figure is not None:
        _watermark(figure)


def _watermark(figure: Figure) -> None:
    """Write in light grey across the figure, behind the data, that no LLM named the latents."""
    for axes in figure.axes:
        axes.patch.set_visible(False)  # it would hide what lies behind the axes
    width, height = figure.get_size_inches()
    text = figure.text(
        0.5,
        0.5,
        WATERMARK,
        ha="center",
        va="center",
        fontsize=72 * 0.8 * width / (0.55 * len(WATERMARK)),
        rotation=min(30.0, math.degrees(math.atan2(height, width))),
        color=GREY,
        alpha=0.15,
        zorder=-1,
    )
    text.set_in_layout(False)


def note(axes: Axes, text: str, down: float = -34) -> None:
    """Write a small grey line under the axes, at the right, so many points below them."""
    axes.annotate(
        text,
        (1, 0),
        (0, down),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=7,
        color=GREY,
    )


def save_empty(text: str, table: pd.DataFrame, output: Output) -> None:
    """Write a figure that says why there is nothing to show."""
    with styled():
        figure, axes = plt.subplots(figsize=(WIDTH * 0.72, 1.2))
        axes.set_axis_off()
        empty(axes, text)
        save(figure, table, output)


def empty(axes: Axes, text: str) -> None:
    """Say why there is nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
