"""Set measured quantities beside published ones: OK, close, differs or NOT RUN.

No published row is ever left out. For category changes the table also says whether the published
value lies in our interval, and whether ours can be told from no change.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from workflow_scripts import cli, files
from workflow_scripts.paper.published import (
    ExplainedVariance,
    NormBin,
    PercentChange,
    Published,
    Study,
    TemplateShare,
    UniqueLatents,
    read_study,
)

OK, CLOSE, DIFFERS, NOT_RUN = "OK", "close", "differs", "NOT RUN"
TEXT = ("comparison", "labeller", "level", "name")


@dataclass(frozen=True)
class SeedFiles:
    """Artifacts of one crosscoder from which quantities are measured."""

    latents: Path
    selection: Path
    evaluation: Path | None = None


@dataclass(frozen=True)
class FitFiles:
    """A fit: its models in order and the files of each seed; the first seed is measured."""

    models: list[str]
    seeds: dict[int, SeedFiles]


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
class Run:
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
        return next(iter(self.fits[fit].seeds.values())) if fit in self.fits else None


def measure(wanted: Published, run: Run) -> Measurement:
    """Return the run's value of a published quantity."""
    what = wanted.measured
    if isinstance(what, PercentChange):
        return _category_change(what, run)
    source = run.seed(what.fit)
    if source is None:
        return Measurement(missing=f"the run has no fit {what.fit}")
    if isinstance(what, UniqueLatents | TemplateShare) and what.model not in (
        run.fits[what.fit].models
    ):
        return Measurement(missing=f"{what.fit} has no model {what.model}")
    if isinstance(what, UniqueLatents):
        return Measurement(float((run.table(source.selection)["unique_to"] == what.model).sum()))
    if isinstance(what, NormBin):
        return _norm_bin(what, run.fits[what.fit].models, run.table(source.latents))
    if isinstance(what, TemplateShare):
        return _template_share(what, run, source)
    return _explained_variance(what, source)


def _category_change(what: PercentChange, run: Run) -> Measurement:
    rows = run.categories
    rows = rows[(rows["comparison"] == what.comparison) & (rows["level"] == what.level)]
    if rows.empty:
        return Measurement(missing=f"the run has no comparison {what.comparison}")
    labellers = list(rows["labeller"].unique())
    usual = [name for name in labellers if name not in ("true", "lexical")]
    labeller = run.labeller or next(iter([*usual, *reversed(labellers)]))
    rows = rows[(rows["labeller"] == labeller) & (rows["name"] == what.name)]
    if rows.empty:
        return Measurement(missing=f"no latent is labelled {what.name}", by=labeller)
    row = rows.iloc[0]
    value = float(row["percent_change"])
    missing = (
        f"no {what.name} before: from zero there is no percentage" if math.isnan(value) else ""
    )
    return Measurement(value, float(row["low"]), float(row["high"]), missing, labeller)


def _norm_bin(what: NormBin, models: Sequence[str], latents: pd.DataFrame) -> Measurement:
    first, second = models[:2]
    live = latents.loc[latents["live"], f"delta_norm_{first}_{second}"]
    return Measurement(float(live.between(what.low, what.high).sum()))


def _template_share(what: TemplateShare, run: Run, source: SeedFiles) -> Measurement:
    selection = run.table(source.selection)
    own = selection.loc[selection["unique_to"] == what.model, "latent"]
    shares = run.table(source.latents).set_index("latent").loc[own, "template_share"]
    if shares.empty:
        return Measurement(missing=f"no latent is unique to {what.model}")
    return Measurement(float((shares > 0.5).mean()))


def _explained_variance(what: ExplainedVariance, source: SeedFiles) -> Measurement:
    if source.evaluation is None:
        return Measurement(missing=f"{what.fit} has no evaluation")
    fve = files.read_json(source.evaluation)["fve"]
    if what.model is None:
        return Measurement(sum(fve.values()) / len(fve))
    return Measurement(fve[what.model])


def judge(published: Published, found: Measurement) -> str:
    """Return the verdict on one row.

    A change from zero has no value but an interval: it is ``close`` when that holds the published
    value, else it ``differs``.
    """
    if math.isnan(found.value):
        if math.isnan(found.low):
            return NOT_RUN
        return CLOSE if found.low <= published.value <= found.high else DIFFERS
    distance = abs(found.value - published.value)
    if distance <= published.tolerance.ok:
        return OK
    return CLOSE if distance <= published.tolerance.close else DIFFERS


def compare(studies: Sequence[Study], run: Run) -> list[Result]:
    """Return a row for each published quantity, in order."""
    return [_result(study, row, measure(row, run)) for study in studies for row in study.rows]


def _result(study: Study, row: Published, found: Measurement) -> Result:
    known = not math.isnan(found.low)
    return Result(
        study=study.study,
        id=row.id,
        quantity=row.quantity,
        where=row.where,
        source=row.source,
        unit=row.unit,
        published=row.value,
        measured=found.value,
        low=found.low,
        high=found.high,
        verdict=judge(row, found),
        published_in_interval=_yes(found.low <= row.value <= found.high) if known else "n/a",
        differs_from_no_change=_yes(found.low > 0 or found.high < 0) if known else "n/a",
        labeller=found.by,
        tolerance_ok=row.tolerance.ok,
        tolerance_close=row.tolerance.close,
        why=row.why,
        missing=found.missing,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def markdown(studies: Sequence[Study], results: Sequence[Result], header: Sequence[str]) -> str:
    """Return the table for people, with the run's facts above it."""
    counts = {v: sum(r.verdict == v for r in results) for v in (OK, CLOSE, DIFFERS, NOT_RUN)}
    lines = ["# Published and measured", ""]
    lines += [f"- {_cell(fact)}" for fact in header]
    lines += ["", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".", ""]
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
        told = "differs" if row.differs_from_no_change == "yes" else "cannot be told"
        notes.append(f"the published value {inside} our interval; ours {told} from no change")
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
    published: Sequence[Path],
    categories: Path | None,
    fits: Mapping[str, FitFiles],
    labeller: str | None,
    header: Sequence[str],
    table: Path,
    text: Path,
) -> None:
    """Write the comparison as CSV and as Markdown."""
    studies = [read_study(path) for path in published]
    run = Run(read_categories(categories), fits, labeller)
    results = compare(studies, run)
    frame = pd.DataFrame([asdict(r) for r in results], columns=[f.name for f in fields(Result)])
    with files.atomic_path(table) as temporary:
        frame.to_csv(temporary, index=False, na_rep="n/a", float_format="%.6g")
    files.write_text(text, markdown(studies, results, header))
    for row in results:
        cli.log(f"{row.verdict:8} {row.id}")


def read_categories(path: Path | None) -> pd.DataFrame:
    """Return ``categories.csv``; without a path, an empty table."""
    if path is None:
        return pd.DataFrame(columns=[*TEXT, "percent_change", "low", "high"])
    if not path.exists():
        raise cli.UserError(f"{path} does not exist: run the step that makes it")
    kinds = dict.fromkeys(TEXT, str)
    return pd.read_csv(path, keep_default_na=False, na_values=["n/a"], dtype=kinds)


def parse_fits(text: str) -> dict[str, FitFiles]:
    """Parse the flag ``--fits``.

    Raises
    ------
    UserError
        If it does not have the form {fit: {models, seeds: {S: files}}}.
    """
    try:
        return TypeAdapter(dict[str, FitFiles]).validate_json(text)
    except ValidationError as error:
        raise cli.UserError(f"--fits is not valid: {error.errors()[0]['msg']}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path, nargs="+", required=True, help="YAML per study")
    parser.add_argument("--categories", type=Path, default=None)
    parser.add_argument("--fits", default="{}", help="JSON: fit: {models, seeds: {S: files}}")
    parser.add_argument("--labeller", default=None, help="default: an LLM, else lexical, else true")
    parser.add_argument("--header", default="[]", help="JSON list: hardware, seeds and such facts")
    parser.add_argument("--table", type=Path, required=True, help="CSV")
    parser.add_argument("--markdown", type=Path, required=True)
    a = parser.parse_args(argv)
    return cli.guarded(
        lambda: compare_published(
            a.published,
            a.categories,
            parse_fits(a.fits),
            a.labeller,
            [str(fact) for fact in json.loads(a.header)],
            a.table,
            a.markdown,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
