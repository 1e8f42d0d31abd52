"""Set measured quantities beside published ones: OK, close, differs or NOT RUN.

No published row is ever left out. For category changes the table also says whether the published
value lies in our interval, and whether ours differs from no change. The header says on which
hardware and with which seeds the crosscoders were fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.common.artifacts import FitFiles, SeedFiles
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.latents.ownership import owned_by
from workflow_scripts.paper.published import (
    ExplainedFraction,
    NormBin,
    PercentChange,
    PublishedQuantity,
    Study,
    TemplateShare,
    UniqueLatents,
    read_study,
)

OK, CLOSE, DIFFERS, NOT_RUN = "OK", "close", "differs", "NOT RUN"
LEGEND = (
    "OK and close: within the smaller and the larger tolerance of the published value; differs: "
    "beyond; NOT RUN: this run has no such quantity. A change from zero has no value: it is close "
    "where its interval holds the published one, else it differs.",
)


@dataclass(frozen=True)
class Measurement:
    """A measured value with its interval; ``missing`` says why there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    missing: str = ""
    by: str = ""


@dataclass(frozen=True)
class Result:
    """One row of the comparison."""

    study: str
    id: str
    quantity: str
    where: str
    source: str
    unit: str
    published: float
    measured: float
    low: float
    high: float
    verdict: str
    published_in_interval: str
    differs_from_no_change: str
    labeller: str
    tolerance_ok: float
    tolerance_close: float
    why: str
    missing: str


@dataclass
class MeasuredRun:
    """The run's artifacts, read once."""

    categories: pd.DataFrame
    fits: Mapping[str, FitFiles]
    labeller: str | None
    tables: dict[Path, pd.DataFrame] = field(default_factory=dict)

    def table(self, path: Path) -> pd.DataFrame:
        """Return a Parquet table."""
        if path not in self.tables:
            self.tables[path] = files.read_parquet(path)
        return self.tables[path]

    def seed(self, fit: str) -> SeedFiles | None:
        """Return the first seed's files, or None where the run has no such fit."""
        return self.fits[fit].first if fit in self.fits else None


def measure(wanted: PublishedQuantity, run: MeasuredRun) -> Measurement:
    """Return the run's value of a published quantity."""
    what = wanted.measured
    if isinstance(what, PercentChange):
        return _category_change(what, run)
    source = run.seed(what.fit)
    if source is None:
        return Measurement(missing=f"the run has no fit {what.fit}")
    model = None if isinstance(what, NormBin) else what.model
    if model is not None and model not in run.fits[what.fit].models:
        return Measurement(missing=f"the fit {what.fit} has no model {model}")
    if isinstance(what, UniqueLatents):
        return Measurement(
            float(owned_by(run.table(source.selection)["unique_to"], what.model).sum())
        )
    if isinstance(what, NormBin):
        return _norm_bin(what, run.fits[what.fit].models, run.table(source.latents))
    if isinstance(what, TemplateShare):
        return _template_share(what, run, source)
    return _explained_variance(what, source)


def _category_change(what: PercentChange, run: MeasuredRun) -> Measurement:
    rows = run.categories
    rows = rows[(rows["comparison"] == what.comparison) & (rows["level"] == what.level)]
    if rows.empty:
        return Measurement(missing=f"the run has no comparison {what.comparison}")
    labeller = run.labeller or usual_labeller(list(rows["labeller"].unique()))
    rows = rows[(rows["labeller"] == labeller) & (rows["name"] == what.name)]
    if rows.empty:
        return Measurement(missing=f"no latent is labelled {what.name}", by=labeller)
    row = rows.iloc[0]
    value = float(row["percent_change"])
    missing = (
        f"no {what.name} before: from zero there is no percentage" if math.isnan(value) else ""
    )
    return Measurement(value, float(row["low"]), float(row["high"]), missing, labeller)


def usual_labeller(names: Sequence[str]) -> str:
    """Return whose labels are counted: an LLM's, as in published studies, else the best at hand."""
    last = ("lexical", "true")
    return min(names, key=lambda name: last.index(name) if name in last else -1)


def _norm_bin(what: NormBin, models: Sequence[str], latents: pd.DataFrame) -> Measurement:
    first, second = models[:2]
    live = latents.loc[latents["live"], f"delta_norm_{first}_{second}"]
    return Measurement(float(live.between(what.low, what.high).sum()))


def _template_share(what: TemplateShare, run: MeasuredRun, source: SeedFiles) -> Measurement:
    selection = run.table(source.selection)
    own = selection.loc[owned_by(selection["unique_to"], what.model), "latent"]
    shares = run.table(source.latents).set_index("latent").loc[own, "template_share"]
    if shares.empty:
        return Measurement(missing=f"no latent is unique to {what.model}")
    return Measurement(float((shares > 0.5).mean()))


def _explained_variance(what: ExplainedFraction, source: SeedFiles) -> Measurement:
    fve = _read_json(source, "evaluation")["fve"]
    if what.model is None:
        return Measurement(sum(fve.values()) / len(fve))
    return Measurement(fve[what.model])


def _read_json(source: SeedFiles, name: str) -> Any:
    path = getattr(source, name)
    if path is None:
        raise cli.UserError(f"--fits names no {name} of a seed")
    return files.read_json(path)


def header(run: str, fits: Mapping[str, FitFiles]) -> list[str]:
    """Return what the table was measured with: a line per crosscoder fit."""
    lines = [f"run {run}"]
    for name, fit in fits.items():
        first = _read_json(fit.first, "crosscoder")
        seeds = ", ".join(map(str, fit.seeds))
        lines.append(
            f"crosscoder {name} of {' and '.join(fit.models)}: layer {first['layer']}, "
            f"{first['latents']} latents, k = {first['k']}, "
            f"{'seeds' if len(fit.seeds) > 1 else 'seed'} {seeds}"
            f"{' (the first is measured)' if len(fit.seeds) > 1 else ''}, "
            f"fitted on {hardware_text(first['provenance'].get('hardware', {}))}"
        )
    return lines


def hardware_text(hardware: Mapping[str, object]) -> str:
    """Return hardware, as provenance records it, in words."""
    gpus = hardware.get("gpus")
    parts = [str(gpu) for gpu in gpus] if isinstance(gpus, list) else []
    if "cpu" in hardware:
        parts.append(f"{hardware['cpu']} ({hardware['cores']} cores)")
    return ", ".join(parts) or "unknown hardware"


def judge(published: PublishedQuantity, measured: Measurement) -> str:
    """Return the verdict on one row.

    A change from zero has no value but an interval: it is ``close`` when that holds the published
    value, else it ``differs``.
    """
    if math.isnan(measured.value):
        if math.isnan(measured.low):
            return NOT_RUN
        return CLOSE if measured.low <= published.value <= measured.high else DIFFERS
    distance = abs(measured.value - published.value)
    if distance <= published.tolerance.ok:
        return OK
    return CLOSE if distance <= published.tolerance.close else DIFFERS


def compare(studies: Sequence[Study], run: MeasuredRun) -> list[Result]:
    """Return a row for each published quantity, in order."""
    return [_result(study, row, measure(row, run)) for study in studies for row in study.rows]


def _result(study: Study, row: PublishedQuantity, measured: Measurement) -> Result:
    known = not math.isnan(measured.low)
    return Result(
        study=study.study,
        id=row.id,
        quantity=row.quantity,
        where=row.where,
        source=row.source,
        unit=row.unit,
        published=row.value,
        measured=measured.value,
        low=measured.low,
        high=measured.high,
        verdict=judge(row, measured),
        published_in_interval=_yes(measured.low <= row.value <= measured.high) if known else "n/a",
        differs_from_no_change=_yes(measured.low > 0 or measured.high < 0) if known else "n/a",
        labeller=measured.by,
        tolerance_ok=row.tolerance.ok,
        tolerance_close=row.tolerance.close,
        why=row.why,
        missing=measured.missing,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def render_markdown(
    studies: Sequence[Study], results: Sequence[Result], facts: Sequence[str]
) -> str:
    """Return the table for people, with the run's facts above it."""
    counts = {v: sum(r.verdict == v for r in results) for v in (OK, CLOSE, DIFFERS, NOT_RUN)}
    lines = ["# Published and measured", ""]
    lines += [f"- {_cell(fact)}" for fact in facts]
    lines += ["", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + "."]
    lines += ["", *LEGEND, ""]
    for study in studies:
        lines += [f"## {_cell(study.title)}", ""]
        lines += ["| quantity | published | source | measured | verdict | notes |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in results:
            if row.study == study.study:
                lines.append("| " + " | ".join(map(_cell, _cells(row))) + " |")
        lines.append("")
    return "\n".join(lines)


def _cells(row: Result) -> Iterator[str]:
    yield row.quantity
    yield _number(row.published, row.unit)
    yield f"{row.source}, {row.where}"
    bounds = f" ({_number(row.low, row.unit)} … {_number(row.high, row.unit)})"
    yield _number(row.measured, row.unit) + ("" if math.isnan(row.low) else bounds)
    yield row.verdict
    notes = [row.missing] if row.missing else []
    if row.published_in_interval != "n/a":
        inside = "lies in" if row.published_in_interval == "yes" else "lies outside"
        ours = "differs" if row.differs_from_no_change == "yes" else "cannot be told"
        notes.append(f"the published value {inside} our interval; ours {ours} from no change")
    if row.labeller:
        notes.append(f"labels by {row.labeller}")
    yield "; ".join(notes)


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit == "percent":
        return f"{value:+.1f} %"
    return f"{value:.3f}" if unit == "fraction" else f"{value:.0f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def compare_published(
    run: str,
    published: list[Path],
    categories: Path,
    fits: dict[str, FitFiles],
    table: Path,
    markdown: Path,
    facts: Path,
    labeller: str | None = None,
) -> None:
    """Write published quantities beside measured ones: OK, close, differs or NOT RUN.

    Parameters
    ----------
    run
        name of the run
    published
        published quantities, a file per study (YAML)
    categories
        what each model gained and lost (CSV)
    fits
        models and artifacts of each fit; the first seed is measured
    table
        table to write, a row per published quantity (CSV)
    markdown
        the same for people (Markdown)
    facts
        what was measured with, a line per crosscoder (JSON)
    labeller
        whose labels are counted; none: an LLM's, else lexical ones, else true ones
    """
    studies = [read_study(path) for path in published]
    lines = header(run, fits)
    results = compare(studies, MeasuredRun(read_csv(categories), fits, labeller))
    write_csv(table, map(asdict, results), [f.name for f in fields(Result)])
    files.write_text(markdown, render_markdown(studies, results, lines))
    files.write_json(facts, lines)
    for row in results:
        cli.log(f"{row.verdict:8} {row.id}")


main = cli.command(compare_published)


if __name__ == "__main__":
    raise SystemExit(main())
