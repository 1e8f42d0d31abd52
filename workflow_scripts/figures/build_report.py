"""Build the run's report: one HTML file that opens from disk and needs nothing else.

The page's parts lie beside this module: ``report.html.j2``, ``report.css`` and ``report.js``.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workflow_scripts.common import cli, files
from workflow_scripts.figures import annotator_tables, report_data, report_tables
from workflow_scripts.figures.category_rows import read_table
from workflow_scripts.figures.report_data import FitFiles
from workflow_scripts.figures.report_tables import Table
from workflow_scripts.figures.style import readable

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Figure:
    """A picture of the report."""

    id: str
    png: Path
    caption: str
    section: str


@dataclass(frozen=True)
class Shown:
    """A figure as the page holds it."""

    id: str
    source: str
    caption: str


@dataclass(frozen=True)
class Inputs:
    """All that the report is made from."""

    run: str
    answer: Path
    categories: Path
    recovery: Path | None
    gaps: Path | None
    sensitivity: Path | None
    published: tuple[Path, Path] | None
    provenance: Path | None
    ledgers: Sequence[Path]
    figures: Sequence[Figure]
    fits: Mapping[str, FitFiles]
    contexts: int


def shown(figure: Figure) -> Shown:
    """Return a figure with its picture as a data URI.

    Raises
    ------
    UserError
        If the picture is missing.
    """
    if not figure.png.exists():
        raise cli.UserError(f"{figure.png} does not exist: run the step that makes it")
    data = base64.b64encode(figure.png.read_bytes()).decode()
    return Shown(figure.id, f"data:image/png;base64,{data}", figure.caption)


def render(inputs: Inputs) -> str:
    """Return the page."""
    answer = files.read_json(inputs.answer)
    categories = read_table(inputs.categories)
    tables = report_tables.category_tables(categories)
    first = [t for c, by, t in tables if (c, by) == (answer["comparison"], answer["labeller"])]
    others = [t for c, by, t in tables if (c, by) != (answer["comparison"], answer["labeller"])]
    provenance = files.read_json(inputs.provenance) if inputs.provenance else {}
    sections: dict[str, list[Shown]] = {}
    for figure in inputs.figures:
        sections.setdefault(figure.section, []).append(shown(figure))
    browsers = [
        report_data.browser(name, fit, inputs.contexts) for name, fit in inputs.fits.items()
    ]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["readable"] = readable
    template = environment.get_template("report.html.j2")
    return template.render(
        run=inputs.run,
        answer=answer,
        annotators=report_data.llm_annotators(inputs.fits),
        warnings=annotator_tables.warnings(inputs.fits),
        trust=annotator_tables.annotator_table(inputs.fits),
        truth=annotator_tables.truth_tables(inputs.fits),
        canaries=annotator_tables.canary_sentence(inputs.fits),
        agreement=annotator_tables.agreement_table(inputs.fits),
        no_agreement=annotator_tables.no_agreement(inputs.fits),
        lead=sections.pop("answer", []),
        sections=sections,
        first_tables=first,
        other_tables=others,
        recovery=report_tables.recovery_table(_optional(inputs.recovery)),
        gaps=report_tables.gap_table(_optional(inputs.gaps)),
        sensitivity=report_tables.sensitivity_table(_optional(inputs.sensitivity)),
        fits=report_tables.fit_table(inputs.fits),
        clauses=report_tables.clause_table(inputs.fits),
        published=report_tables.published_table(inputs.published[0]) if inputs.published else None,
        measured_with=files.read_json(inputs.published[1]) if inputs.published else [],
        provenance=report_tables.flatten(provenance),
        ledger=ledger_table(inputs.ledgers),
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
        data=Markup(report_data.to_json(browsers)),
    )


def _optional(path: Path | None) -> pd.DataFrame:
    return read_table(path) if path else pd.DataFrame()


def ledger_table(paths: Sequence[Path]) -> Table | None:
    """Return the totals of all answered calls to LLMs, by annotator and model."""
    parts = [pd.read_csv(path) for path in paths]
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


def build_report(inputs: Inputs, output: Path) -> None:
    """Write the page to ``output``."""
    page = render(inputs)
    files.write_text(output, page)
    cli.log(f"{output}: {len(page.encode()) / 1e6:.1f} MB")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--categories", type=Path, required=True)
    parser.add_argument("--recovery", type=Path, default=None)
    parser.add_argument("--gaps", type=Path, default=None)
    parser.add_argument("--sensitivity", type=Path, default=None)
    parser.add_argument("--published", type=Path, nargs=2, default=None, help="table, header")
    parser.add_argument("--provenance", type=Path, default=None)
    parser.add_argument("--ledgers", type=Path, nargs="*", default=[])
    parser.add_argument("--figures", required=True, help="JSON: [{id, png, caption, section}]")
    parser.add_argument("--fits", required=True, help="JSON: fit: {models, layer, seeds}")
    parser.add_argument("--contexts", type=int, default=6, help="contexts shown per latent")
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        inputs = Inputs(
            a.run,
            a.answer,
            a.categories,
            a.recovery,
            a.gaps,
            a.sensitivity,
            (a.published[0], a.published[1]) if a.published else None,
            a.provenance,
            a.ledgers,
            cli.parse(a.figures, list[Figure], "--figures"),
            cli.parse(a.fits, dict[str, FitFiles], "--fits"),
            a.contexts,
        )
        build_report(inputs, a.output)

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
