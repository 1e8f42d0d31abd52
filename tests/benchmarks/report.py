"""One table for all benchmarks: ``results/benchmarks.csv``."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

TABLE = Path("results/benchmarks.csv")


@dataclass(frozen=True)
class Figure:
    """One measured figure; ``target`` is a bound in words, ``met`` is empty where there is none."""

    benchmark: str
    figure: str
    value: float
    unit: str
    target: str = ""
    met: str = ""


def at_least(benchmark: str, figure: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that should reach ``bound``."""
    met = "yes" if value >= bound else "no"
    return Figure(benchmark, figure, value, unit, f">= {bound:g}", met)


def at_most(benchmark: str, figure: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that should not exceed ``bound``."""
    met = "yes" if value <= bound else "no"
    return Figure(benchmark, figure, value, unit, f"<= {bound:g}", met)


def record(figures: list[Figure], table: Path = TABLE) -> None:
    """Print the figures and replace these benchmarks' rows in the table."""
    table.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Figure)]
    fresh = {figure.benchmark for figure in figures}
    rows: list[dict[str, object]] = []
    if table.exists():
        with table.open(encoding="utf-8") as file:
            rows += [row for row in csv.DictReader(file) if row["benchmark"] not in fresh]
    for figure in figures:
        rows.append(asdict(figure) | {"value": f"{figure.value:.4g}"})
        print(
            f"{figure.benchmark}: {figure.figure} = {figure.value:.4g} {figure.unit} "
            f"{figure.target} {figure.met}",
            flush=True,
        )
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
