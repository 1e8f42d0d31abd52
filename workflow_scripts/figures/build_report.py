"""Build the run's report: one HTML file that opens from disk and needs nothing else.

The page's parts are files beside this module: ``report.html.j2``, ``report.css`` and ``report.js``.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workflow_scripts.common import cli, files
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.common.settings import Settings
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures import annotator_tables, report_data, report_tables
from workflow_scripts.figures.report_tables import Table
from workflow_scripts.figures.style import readable

HERE = Path(__file__).resolve().parent


CONTEXTS = 6  # of each latent, in the browser


class Picture(Settings):
    """A figure of the report: its file, the section that shows it, and its caption."""

    png: Path
    section: str
    caption: str


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
    return Table("Calls to LLMs", header, rows, [""] * len(rows))


def build_report(
    run: str,
    answer: Path,
    categories: Path,
    recovery: Path,
    gaps: Path,
    sensitivity: Path,
    provenance: Path,
    figures: dict[str, Picture],
    fits: dict[str, FitFiles],
    output: Path,
    ledgers: list[Path] | None = None,
    published: tuple[Path, Path] | None = None,
) -> None:
    """Write the page.

    Parameters
    ----------
    run
        name of the run
    answer
        what the run answers (JSON)
    categories, recovery, gaps, sensitivity
        tables of the comparison (CSV)
    provenance
        where the run's artifacts came from (JSON)
    figures
        the figures shown, by name and in order
    fits
        files of the fits shown
    output
        page to write (HTML)
    ledgers
        calls to LLMs (CSV)
    published
        published quantities beside what was measured (CSV), and with what it was measured (JSON)
    """
    answered = files.read_json(answer)
    own = (answered["comparison"], answered["labeller"])
    tables = report_tables.category_tables(read_csv(categories))
    sections: dict[str, list[Shown]] = {}
    for name, picture in figures.items():
        sections.setdefault(picture.section, []).append(shown(name, picture))
    browsers = [report_data.browser(name, fit, CONTEXTS) for name, fit in fits.items()]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["readable"] = readable
    page = environment.get_template("report.html.j2").render(
        run=run,
        answer=answered,
        annotators=report_data.llm_annotators(fits),
        warnings=annotator_tables.warnings(fits),
        trust=annotator_tables.annotator_table(fits),
        truth=annotator_tables.truth_tables(fits),
        canaries=annotator_tables.canary_sentence(fits),
        agreement=annotator_tables.agreement_table(fits),
        no_agreement=annotator_tables.no_agreement(fits),
        lead=sections.pop("answer", []),
        sections=sections,
        first_tables=[table for *key, table in tables if tuple(key) == own],
        other_tables=[table for *key, table in tables if tuple(key) != own],
        recovery=report_tables.recovery_table(read_csv(recovery)),
        gaps=report_tables.gap_table(read_csv(gaps)),
        sensitivity=report_tables.sensitivity_table(read_csv(sensitivity)),
        fits=report_tables.fit_table(fits),
        clauses=report_tables.clause_table(fits),
        published=report_tables.published_table(published[0]) if published else None,
        measured_with=files.read_json(published[1]) if published else [],
        provenance=report_tables.flatten(files.read_json(provenance)),
        ledger=ledger_table(ledgers or []),
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
        data=Markup(report_data.to_json(browsers)),
    )
    files.write_text(output, page)
    cli.log(f"{output}: {len(page.encode()) / 1e6:.1f} MB")


main = cli.command(build_report)


if __name__ == "__main__":
    raise SystemExit(main())
