"""Build the run's report: one HTML file that opens from disk and needs nothing else.

The page's parts are files beside this module: ``report.html.j2``, ``report.css`` and ``report.js``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from workflow_scripts.common import cli, files
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.common.characters import hidden
from workflow_scripts.common.settings import Name, Settings
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison.answers import sentences
from workflow_scripts.figures import (
    annotator_tables,
    cards,
    report_data,
    report_tables,
    telling_documents,
    verdict_latex,
    verdict_rows,
    verdict_table,
)
from workflow_scripts.figures.report_data import Browser
from workflow_scripts.figures.report_tables import Table
from workflow_scripts.figures.said_differently import Said, read_differences
from workflow_scripts.figures.style import readable
from workflow_scripts.figures.verdict_table import FirstTable

HERE = Path(__file__).resolve().parent


CONTEXTS = 6  # of each latent, in the browser
LATENTS = 20_000  # of all crosscoders, in the browser: a page of some 20 MB


class Picture(Settings):
    """A figure of the report: its file, the section that shows it, and its caption."""

    png: Path
    section: str
    caption: str


class Weighed(Settings):
    """What carries a direct comparison, for its first crosscoder."""

    fit: Name
    documents: Path
    carriers: Path


@dataclass(frozen=True)
class Texts:
    """What is known of single documents: labels, likelihoods and the texts in parts."""

    labels: Sequence[Path]
    losses: Path
    documents: Sequence[Path]


@dataclass(frozen=True)
class Shown:
    """A figure as the page holds it."""

    id: str
    source: str
    caption: str


def shown(name: str, figure: Picture) -> Shown:
    """Return a figure with its picture as a data URI.

    Raises
    ------
    UserError
        If the picture is missing.
    """
    if not figure.png.exists():
        raise cli.UserError(f"{figure.png} does not exist: run the step that makes it")
    data = base64.b64encode(figure.png.read_bytes()).decode()
    return Shown(name, f"data:image/png;base64,{data}", figure.caption)


def ledger_table(paths: Sequence[Path]) -> Table | None:
    """Return the totals of all answered calls to LLMs, by annotator and model."""
    parts = [read_csv(path, missing=("",)) for path in paths]
    calls = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if calls.empty:
        return None
    calls = calls[calls["status"] > 0]  # the rest had no answer
    keys = ["annotator", "requested_model", "returned_model"]
    groups = calls.groupby(keys, dropna=False)
    totals = groups[["input_tokens", "output_tokens"]].sum().astype(int)
    totals = totals.assign(answers=groups.size()).reset_index()
    rows = [
        [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row]
        for row in totals.itertuples(index=False)
    ]
    header = [readable(str(name)) for name in totals.columns]
    return Table("Calls to LLMs", header, rows)


def build_report(
    run: str,
    answer: Path,
    changes: Path,
    labels: list[Path],
    losses: Path,
    documents: list[Path],
    recovery: Path,
    sensitivity: Path,
    provenance: Path,
    figures: dict[str, Picture],
    fits: dict[str, FitFiles],
    output: Path,
    card: Path,
    verdicts: Path,
    latex: Path,
    weighed: dict[str, Weighed],
    differences: Said,
    gaps: Path | None = None,
    ledgers: list[Path] | None = None,
    llm_labels: Path | None = None,
    published: tuple[Path, Path] | None = None,
) -> None:
    """Write the page.

    Parameters
    ----------
    run
        name of the run
    answer
        what the run answers (JSON)
    changes
        verdicts and effects by label (CSV)
    labels
        tables of labels of the documents (Parquet)
    losses
        how well each model predicts each document (Parquet)
    documents
        the sampled documents, in parts (Parquet)
    recovery, sensitivity
        tables of the comparison (CSV)
    provenance
        where the run's artifacts came from (JSON)
    figures
        the figures shown, by name and in order
    fits
        files of the fits shown
    output
        page to write (HTML)
    card
        the answer to write on a page of Markdown
    verdicts
        the card's verdicts to write (CSV)
    latex
        the same as a table for a paper (LaTeX)
    weighed
        what carries each direct comparison, by name
    gaps
        gaps in scores of the user's own (CSV)
    ledgers
        calls to LLMs (CSV)
    llm_labels
        how an LLM labelled documents (JSON)
    published
        published quantities beside what was measured (CSV), and with what it was measured (JSON)
    """
    facts = files.read_json(answer)
    comparison, labeller = str(facts["comparison"]), str(facts["labeller"])
    table = verdict_rows.read_changes(changes)
    rows = verdict_rows.answering(table, comparison, labeller)
    most = LATENTS // max(len(fits), 1)
    browsers = {name: report_data.browser(name, f, CONTEXTS, most) for name, f in fits.items()}
    texts = Texts(labels, losses, documents)
    lines = first_lines(facts, rows, weighed.get(comparison), texts, browsers)
    origin, crosscoders = files.read_json(provenance), report_tables.fit_table(fits)
    labelling = files.read_json(llm_labels) if llm_labels else None
    warnings = annotator_tables.warnings(fits, labelling)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            answer=facts,
            sentences=sentences(facts),
            lines=lines,
            sections=sections(figures),
            least=verdict_table.least_table(rows),
            others=verdict_table.other_verdicts(table, rows),
            recovery=report_tables.recovery_table(read_csv(recovery)),
            evidence=verdict_table.evidence_table(rows),
            sensitivity=report_tables.sensitivity_table(
                read_csv(sensitivity), comparison, labeller
            ),
            scores=report_tables.score_table(read_csv(gaps), labeller) if gaps else None,
            published=report_tables.published_table(published[0]) if published else None,
            measured_with=files.read_json(published[1]) if published else [],
            fits=crosscoders,
            clauses=report_tables.clause_table(fits),
            annotators=report_data.llm_annotators(fits),
            warnings=warnings,
            trust=annotator_tables.annotator_table(fits),
            truth=annotator_tables.truth_tables(fits),
            canaries=annotator_tables.canary_sentence(fits),
            agreement=annotator_tables.agreement_table(fits),
            no_agreement=annotator_tables.no_agreement(fits),
            said=read_differences(differences, labels, labeller),
            labelling=annotator_tables.labelling_tables(labelling),
            ledger=ledger_table(ledgers or []),
            provenance=[
                ("text", facts["text"]["description"]),
                *report_tables.flatten(origin),
            ],
            style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
            script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
            data=Markup(report_data.to_json(list(browsers.values()))),
        )
    )
    pictures = {picture.caption: picture.png for picture in foremost(figures, comparison)}
    said = (facts, sentences(facts), lines, pictures, crosscoders, origin, warnings)
    files.write_text(card, cards.card(*said, card.parent))
    write_csv(verdicts, rows)
    files.write_text(latex, verdict_latex.latex(lines.lines, facts))
    files.write_text(output, page)
    cli.log(f"{output}: {len(page.encode()) / 1e6:.1f} MB")


def foremost(figures: Mapping[str, Picture], comparison: str) -> list[Picture]:
    """Return the figures, those of the answer first, then others of its comparison."""
    names = sorted(
        figures,
        key=lambda name: (figures[name].section != "answer", not name.endswith(f"_{comparison}")),
    )
    return [figures[name] for name in names]


def sections(figures: Mapping[str, Picture]) -> dict[str, list[Shown]]:
    """Return the figures by the section that shows them, in order."""
    by_section: dict[str, list[Shown]] = {}
    for name, picture in figures.items():
        by_section.setdefault(picture.section, []).append(shown(name, picture))
    return by_section


def first_lines(
    facts: Mapping[str, Any],
    rows: pd.DataFrame,
    weighed: Weighed | None,
    texts: Texts,
    browsers: Mapping[str, Browser],
) -> FirstTable:
    """Return the page's first table, with the documents and latents that carry each verdict."""
    if weighed is None or rows.empty:
        return verdict_table.first_table(rows, {}, {})
    labeller, models = str(rows["labeller"].iloc[0]), (facts["baseline"], facts["candidate"])
    telling = telling_documents.read_telling(
        texts.labels, labeller, weighed.documents, texts.losses, texts.documents, models
    )
    words = verdict_table.latent_words(browsers[weighed.fit])
    carriers = files.read_parquet(weighed.carriers)
    links = verdict_table.latent_links(carriers, labeller, weighed.fit, words)
    return verdict_table.first_table(rows, links, verdict_table.excerpts_of(telling))


def environment() -> Environment:
    """Return the environment of the page's template: what it writes is data, never markup."""
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=inert,
    )


def inert(value: object) -> Markup:
    """Return a value as markup that shows it: no tag, no address, no character that hides.

    Characters that cannot be seen or that turn the writing round are shown by their number.
    """
    if isinstance(value, Markup):
        return value
    text = hidden().sub(lambda match: f"U+{ord(match[0]):04X}", str(value))
    return Markup(str(escape(text)).replace("://", ":&#47;&#47;"))


main = cli.command(build_report)


if __name__ == "__main__":
    raise SystemExit(main())
