"""The page's first table, category by category, and the tables that say how sure it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from workflow_scripts.figures import style, verdict_rows
from workflow_scripts.figures.category_rows import Row, rows_of
from workflow_scripts.figures.report_data import Browser
from workflow_scripts.figures.report_tables import Table, interval, number, probability
from workflow_scripts.figures.style import readable

MARKS = {
    "gained": "▲",
    "lost": "▼",
    "used differently": "◆",
    "moved": "■",
    "unchanged": "○",
    "cannot tell": "✖",
}
"""Signs of the verdicts, those of the first figure."""
LATENTS = 3
"""Latents that the page's first table names for each label."""
FULL = 16
"""Lines of the first table, beyond which labels without a change are folded away."""
EVIDENCE = {
    "divergence": "KL",
    "distance": "relative distance",
    "signed_norm": "signed norm",
    "unique_mass": "unique mass",
    "delta_norm": "Δnorm",
}
"""Graded evidence beside both effects, in the order of the table that shows it."""


@dataclass(frozen=True)
class LatentLink:
    """A latent that carries a label's difference: where the browser shows it, and what it is."""

    address: str
    latent: int
    text: str
    share: str
    delta_norm: str


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a telling document, and what was measured on it."""

    document: int
    distance: str
    gap: str
    text: str


@dataclass(frozen=True)
class Line:
    """A line of the page's first table, with what unfolds below it."""

    label: str
    verdict: str
    behaviour: tuple[str, str]  # estimate, interval
    representation: tuple[str, str]
    documents: str
    latents: list[LatentLink]
    excerpts: list[Excerpt]

    @property
    def mark(self) -> str:
        """The verdict's sign in the first figure."""
        return MARKS[self.verdict]

    @property
    def kind(self) -> str:
        """The verdict as the name of a style."""
        return self.verdict.replace(" ", "-")


@dataclass(frozen=True)
class FirstTable:
    """Lines that the page's first screen shows, and those folded away below it."""

    shown: list[Line]
    folded: list[Line]

    @property
    def lines(self) -> list[Line]:
        """All lines."""
        return self.shown + self.folded


def first_table(
    rows: pd.DataFrame,
    latents: Mapping[str, list[LatentLink]],
    excerpts: Mapping[str, list[Excerpt]],
) -> FirstTable:
    """Return the first table of the answering rows of ``changes.csv``, in their order."""
    lines = [
        Line(
            label=readable(row.text("label")),
            verdict=row.text("verdict"),
            behaviour=_estimate(row, "behaviour"),
            representation=_estimate(row, "representation"),
            documents=f"{row.count('documents'):,}",
            latents=latents.get(row.text("label"), []),
            excerpts=excerpts.get(row.text("label"), []),
        )
        for row in rows_of(rows)
    ]
    quiet = [line for line in lines if line.verdict in verdict_rows.QUIET]
    if len(lines) <= FULL or not quiet:
        return FirstTable(lines, [])
    return FirstTable([line for line in lines if line not in quiet], quiet)


def _estimate(row: Row, name: str) -> tuple[str, str]:
    if math.isnan(row.number(name)):
        return "not measured", ""
    return number(row.number(name), 2, sign=True), interval(row, name, 1, 2, sign=True)


def latent_links(
    carriers: pd.DataFrame, labeller: str, fit: str, words: Mapping[int, str]
) -> dict[str, list[LatentLink]]:
    """Return the first latents that carry each label's difference; ``words`` say what they are."""
    own = carriers[(carriers["labeller"] == labeller) & (carriers["rank"] <= LATENTS)]
    links: dict[str, list[LatentLink]] = {}
    for row in rows_of(own.sort_values(["label", "rank"])):
        latent = row.count("latent")
        link = LatentLink(
            address=f"latent={fit}/{latent}",
            latent=latent,
            text=words.get(latent, ""),
            share=f"{number(100 * row.number('share'), 1)} %",
            delta_norm=number(row.number("delta_norm"), 2),
        )
        links.setdefault(row.text("label"), []).append(link)
    return links


def latent_words(browser: Browser) -> dict[int, str]:
    """Return what is known of each latent: its explanation, else the tokens on which it fires."""
    columns = {column["id"]: column["values"] for column in browser["columns"]}
    latents = [int(float(str(value))) for value in columns["latent"]]
    words = {int(latent): text for latent, text in _strongest(browser)}
    for name, values in columns.items():
        if name.startswith("explanation by "):
            given = zip(latents, values, strict=True)
            words |= {latent: str(value) for latent, value in given if value}
    return words


def _strongest(browser: Browser) -> Iterable[tuple[str, str]]:
    """Yield each latent with the tokens on which it fires most strongly in its contexts."""
    for latent, contexts in browser["contexts"].items():
        tops = [
            (value, browser["pieces"][context["tokens"][place]].strip())
            for context in contexts
            for place, value in sorted(context["active"], key=lambda pair: -pair[1])[:1]
        ]
        pieces = dict.fromkeys(piece for _, piece in sorted(tops, reverse=True) if piece)
        if pieces:
            yield latent, f"fires on: {', '.join(list(pieces)[:4])}"


def excerpts_of(telling: pd.DataFrame) -> dict[str, list[Excerpt]]:
    """Return the telling documents of each label as the page shows them."""
    shown: dict[str, list[Excerpt]] = {}
    for row in rows_of(telling):
        gap = row.number("gap")
        excerpt = Excerpt(
            document=row.count("document"),
            distance=number(row.number("distance"), 2),
            gap="not measured" if math.isnan(gap) else number(gap, 2, sign=True),
            text=row.text("excerpt"),
        )
        shown.setdefault(row.text("label"), []).append(excerpt)
    return shown


def least_table(rows: pd.DataFrame) -> Table | None:
    """Return per label the chance that a call is false, and the least effect that would be one."""
    if rows.empty:
        return None
    cells = [
        [
            readable(row.text("label")),
            *(probability(row.number(f"{effect}_q")) for effect in ("behaviour", "representation")),
            *(_least(row, effect) for effect in ("behaviour", "representation")),
        ]
        for row in rows_of(rows)
    ]
    header = ["category", "behaviour: q", "representation: q"]
    header += ["least behaviour that would be called", "least representation that would be called"]
    caption = "How sure each verdict is, and what could not have been seen"
    return Table(caption, header, cells)


def _least(row: Row, effect: str) -> str:
    return number(row.number(f"{effect}_least"), 3)


def other_verdicts(changes: pd.DataFrame, rows: pd.DataFrame) -> Table | None:
    """Return a line per comparison, labeller and seed other than those of ``rows``.

    None where there is no other.
    """
    keys = ["comparison", "labeller", "seed"]
    own = tuple(rows[keys].iloc[0]) if len(rows) else None
    groups = [(key, block) for key, block in changes.groupby(keys, sort=False) if tuple(key) != own]
    if not groups:
        return None
    called = [verdict for verdict in style.LOOKS if verdict not in verdict_rows.QUIET]
    cells = [
        [
            f"{block['baseline'].iloc[0]} → {block['candidate'].iloc[0]} ({key[0]})",
            style.whose_labels(str(key[1])),
            str(key[2]),
            *(_labels(block, verdict) for verdict in called),
            *(str((block["verdict"] == verdict).sum()) for verdict in verdict_rows.QUIET),
        ]
        for key, block in groups
    ]
    header = ["models (comparison)", "labels", "seed", *called, *verdict_rows.QUIET]
    caption = "The same question, asked of other labels, other seeds and other pairs of models"
    return Table(caption, header, cells)


def _labels(block: pd.DataFrame, verdict: str) -> str:
    return (
        ", ".join(readable(str(n)) for n in block.loc[block["verdict"] == verdict, "label"]) or "–"
    )


def evidence_table(rows: pd.DataFrame) -> Table | None:
    """Return what stands beside the effects of each label, with intervals; None without any."""
    measures = [name for name in EVIDENCE if name in rows and rows[name].notna().any()]
    if rows.empty or not measures:
        return None
    cells = [
        [readable(row.text("label")), *(_measure(row, name) for name in measures)]
        for row in rows_of(rows)
    ]
    header = ["category", *(EVIDENCE[name] for name in measures)]
    caption = (
        "How far predictions and activations are apart: KL of the candidate's predictions from the"
        " baseline's, nats per token; squared distance of the activations over their energy; energy"
        " of the candidate less that of the baseline, over the same; share of energy in latents"
        " that are unique to one model; Δnorm of the latents that fire, 0.5 is shared"
    )
    return Table(caption, header, cells)


def _measure(row: Row, name: str) -> str:
    sign = name == "signed_norm"
    bounds = interval(row, name, 1, 3, sign)
    return number(row.number(name), 3, sign) + (f"\n{bounds}" if bounds else "")
