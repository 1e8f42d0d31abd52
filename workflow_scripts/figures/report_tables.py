"""The report's tables: what is shown in words and figures, formatted for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.common import files
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.common.labellers import LEXICAL
from workflow_scripts.common.tables import read_csv
from workflow_scripts.common.taxonomy import NOT_JUDGED
from workflow_scripts.figures.category_rows import Row, rows_of
from workflow_scripts.figures.style import labels_note, readable
from workflow_scripts.latents.ownership import owned_by

SIGNS = {1: "▲ gained", -1: "▼ lost", 0: "open"}


@dataclass(frozen=True)
class Table:
    """A table: caption, header, rows of cells, and the class of each row for its colour."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    kinds: list[str]


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """Return a number for people; n/a where it is undefined, ∞ where it is unbounded."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def probability(value: float) -> str:
    """Return a p or q value."""
    if math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(row: Row, name: str, factor: float = 1, digits: int = 0, sign: bool = False) -> str:
    """Return the bounds ``name_low`` … ``name_high``."""
    low, high = (factor * row.number(f"{name}_{end}") for end in ("low", "high"))
    if math.isnan(low) and math.isnan(high):
        return ""
    return f"{number(low, digits, sign)} … {number(high, digits, sign)}"


def change(row: Row) -> str:
    """Return counts and percent change of the anchored statistic."""
    before, after = row.count("n_baseline"), row.count("n_candidate")
    if before == 0:
        return f"n/a ({before} → {after})"
    return f"{number(row.number('percent_change'), 0, sign=True)} %"


def category_tables(categories: pd.DataFrame) -> list[tuple[str, str, Table]]:
    """Return (comparison, labeller, table) for each, categories of the first seed first."""
    tables = []
    for (comparison, labeller), block in categories.groupby(["comparison", "labeller"], sort=False):
        for level in ("category", "class"):
            rows = block[(block["level"] == level) & (block["seed"] == block["seed"].iloc[0])]
            if len(rows):
                table = direct_table if rows["kind"].iloc[0] == "direct" else anchored_table
                tables.append((str(comparison), str(labeller), table(rows, level)))
    return tables


def direct_table(rows: pd.DataFrame, level: str) -> Table:
    """Return the table of a direct comparison: detection, then direction."""
    ordered = rows.sort_values(["tested", "unique_share"], ascending=False)
    placebo = ordered["placebo_share"].notna().any()
    first = rows_of(ordered.head(1))[0]
    header = [level, "verdict", "direct share", "reference, least callable", "q"]
    header += ["placebo"] if placebo else []
    header += ["Δnorm shift", "anchored change", "gap less the median", "votes"]
    cells = []
    for row in rows_of(ordered):
        beside = [f"{number(100 * row.number('placebo_share'), 0)} %"] if placebo else []
        cells.append(
            [
                readable(row.text("name")),
                _text(row, "verdict"),
                f"{number(100 * row.number('unique_share'), 0)} %"
                f" ({number(row.number('unique'), 0)} of {number(row.number('live'), 0)})"
                f"\n{interval(row, 'unique_share', 100)} %",
                f"{number(100 * row.number('reference_share'), 0)} %"
                f"\n{number(100 * row.number('detectable_share'), 0)} %",
                probability(row.number("detection_q")),
                *beside,
                _estimate(row, "delta_norm"),
                f"{number(row.number('anchored_change'), 0, sign=True)} %"
                if not math.isnan(row.number("anchored_change"))
                else {1.0: "from zero", -1.0: "to zero"}.get(row.number("anchored_sign"), "n/a"),
                _estimate(row, "likelihood_gap"),
                _text(row, "votes"),
            ]
        )
    caption = (
        f"{first.text('comparison')}: latents unique to {first.text('baseline')} or to"
        f" {first.text('candidate')} in one crosscoder, by {level};"
        f" {labels_note(first.text('labeller'))}{_coverage(rows, {'labelled': 'latents judged'})}"
    )
    return Table(caption, header, cells, [_kind(row) for row in rows_of(ordered)])


def anchored_table(rows: pd.DataFrame, level: str) -> Table:
    """Return the table of an anchored comparison, as published studies count."""
    keys = pd.DataFrame(
        {
            "tested": ~rows["tested"].astype(bool),
            "ratio": -(rows["share_candidate"] - rows["share_baseline"]),
        }
    ).sort_values(["tested", "ratio"])
    ordered = rows.loc[keys.index]
    first = rows_of(ordered.head(1))[0]
    base, cand = first.text("baseline"), first.text("candidate")
    header = [level, base, cand, "change", "interval", "p", "q", "least callable", "robust"]
    cells = [
        [
            readable(row.text("name")),
            f"{row.count('n_baseline')} of {row.count('N_baseline')}",
            f"{row.count('n_candidate')} of {row.count('N_candidate')}",
            change(row),
            f"{number(row.number('low'), 0, True)} … {number(row.number('high'), 0, True)} %"
            if not math.isnan(row.number("low"))
            else "",
            probability(row.number("p")),
            probability(row.number("q")),
            f"{number(row.number('detectable_down'), 0, True)}"
            f" / {number(row.number('detectable_up'), 0, True)} %",
            _text(row, "robust") or "one seed",
        ]
        for row in rows_of(ordered)
    ]
    caption = (
        f"{first.text('comparison')}: latents unique to {base} in one crosscoder against latents"
        f" unique to {cand} in another, by {level}; {labels_note(first.text('labeller'))}"
        f"{_coverage(rows, {'n_baseline': f'judged, of {base}', 'n_candidate': f'of {cand}'})}"
    )
    return Table(caption, header, cells, [_kind(row) for row in rows_of(ordered)])


def _coverage(rows: pd.DataFrame, counts: Mapping[str, str]) -> str:
    """Say which share of the latents judged have a category by counting words, per column.

    Empty for other labels.
    """
    if rows["labeller"].iloc[0] != LEXICAL:
        return ""
    judged = rows[rows["name"] != NOT_JUDGED]
    named = judged[judged["tested"].astype(bool)]
    parts = []
    for column, label in counts.items():
        count, total = int(named[column].sum()), int(judged[column].sum())
        share = f" ({100 * count / total:.0f} %)" if total else ""
        parts.append(f"{count} of {total} {label}{share}")
    return f"; with a category: {', '.join(parts)}"


def _estimate(row: Row, name: str) -> str:
    """Return an estimate with its interval on a second line."""
    return f"{number(row.number(name), 3, sign=True)}\n{interval(row, name, 1, 3, sign=True)}"


def _text(row: Row, name: str) -> str:
    value = row.text(name)
    return "" if value == "nan" else value


def _kind(row: Row) -> str:
    words = {"gained": "gained", "lost": "lost", "changed, direction unclear": "unclear"}
    return words.get(_text(row, "verdict"), "untested" if not _tested(row) else "")


def _tested(row: Row) -> bool:
    return row.text("tested") == "True"


def fit_table(fits: Mapping[str, FitFiles]) -> Table:
    """Return a row per crosscoder: FVE and loss per model, L0, dead latents, unique latents."""
    rows = []
    for name, fit in fits.items():
        for seed, source in fit.seeds.items():
            selection = files.read_parquet(source.selection)
            unique = {m: int(owned_by(selection["unique_to"], m).sum()) for m in fit.models}
            facts = files.read_json(source.evaluation) if source.evaluation else {}
            fve = facts.get("fve", {})
            recovered = _recovered(source.loss)
            rows.append(
                [
                    name,
                    str(seed),
                    str(fit.layer),
                    ", ".join(f"{m} {number(fve.get(m, math.nan), 4)}" for m in fit.models),
                    ", ".join(f"{m} {number(v, 3)}" for m, v in recovered.items()) or "n/a",
                    f"{number(facts.get('l0_threshold', math.nan), 1)} (k = {facts.get('k', '?')})",
                    f"{number(100 * facts.get('dead_share', math.nan), 1)} %",
                    str(len(selection)),
                    ", ".join(f"{m} {count}" for m, count in unique.items()),
                    str(len(files.read_parquet(source.mirrors))) if source.mirrors else "n/a",
                ]
            )
    header = [
        "fit",
        "seed",
        "layer",
        "held-out FVE",
        "loss recovered",
        "L0",
        "dead",
        "live",
        "unique to",
    ]
    header += ["mirror pairs"]
    return Table("Crosscoders", header, rows, [""] * len(rows))


CLAUSES = {
    "live": "live",
    "status": "defined, no flipped sign",
    "nu_r": "ν^r below its bound",
    "nu_e": "ν^ε below its bound",
    "fdr": "significant",
    "delta_norm": "Δnorm",
}


def clause_table(fits: Mapping[str, FitFiles]) -> Table | None:
    """Return how many live latents are left after each clause of the rule, by claim."""
    counts = [
        (name, seed, files.read_json(source.clauses)["left_after"])
        for name, fit in fits.items()
        for seed, source in fit.seeds.items()
        if source.clauses
    ]
    if not counts:
        return None
    counted = next(iter(counts[0][2].values()))
    steps = [step for step in CLAUSES if step in counted]  # the file's keys are sorted
    rows = [
        [name, str(seed), readable(claim), *(str(left[step]) for step in steps)]
        for name, seed, claims in counts
        for claim, left in claims.items()
    ]
    header = ["fit", "seed", "unique to", *(CLAUSES[step] for step in steps)]
    return Table("Latents left after each clause of the rule", header, rows, [""] * len(rows))


def _recovered(path: Path | None) -> dict[str, float]:
    """Return by model the share of the loss that reconstructions keep, against mean ablation."""
    if path is None:
        return {}
    table = read_csv(path)
    every = table[table["source"] == "all"]
    return dict(zip(every["model"], every["recovered_mean"].astype(float), strict=True))


def recovery_table(recovery: pd.DataFrame) -> Table | None:
    """Return power and false calls per statistic, where something was planted."""
    if recovery.empty:
        return None
    rows = []
    keys = ["comparison", "labeller", "seed", "statistic"]
    for (comparison, labeller, seed, statistic), block in recovery.groupby(keys, sort=False):
        planted = block[block["planted"] != "unchanged"]
        same = block[block["planted"] == "unchanged"]
        judged = planted[planted["sign_right"].isin(["yes", "no"])]
        rows.append(
            [
                str(comparison),
                str(labeller),
                str(seed),
                readable(str(statistic)),
                f"{int(planted['called'].astype(bool).sum())} of {len(planted)}",
                f"{int((judged['sign_right'] == 'yes').sum())} of {len(judged)}"
                if len(judged)
                else "has none",
                f"{int((same['false_call'] == 'yes').sum())} of {len(same)}",
            ]
        )
    header = ["comparison", "labels", "seed", "statistic", "planted called", "sign right", "false"]
    return Table("Planted changes and what each statistic finds", header, rows, [""] * len(rows))


def gap_table(gaps: pd.DataFrame) -> Table | None:
    """Return how gaps in score and changes of latents go together, the telling ones first."""
    readings = [
        "gap with a change of latents",
        "gap and change opposed",
        "gap without a change of latents",
        "change of latents that no score shows",
        "within noise",
    ]
    if gaps.empty:
        return None
    order = gaps["reading"].map({word: i for i, word in enumerate(readings)})
    ordered = gaps.assign(order=order).sort_values(["order", "comparison", "labeller", "name"])
    rows = [
        [
            readable(row.text("name")),
            row.text("reading"),
            row.text("source"),
            number(row.number("gap"), 3, sign=True),
            interval(row, "gap", 1, 3, sign=True),
            row.text("verdict"),
            number(row.number("delta_norm"), 3, sign=True),
            row.text("comparison"),
            row.text("labeller"),
        ]
        for row in rows_of(ordered)
    ]
    header = ["category", "reading", "score", "gap", "interval", "verdict", "Δnorm shift"]
    caption = "Gaps in score and changes of latents, category by category"
    return Table(caption, [*header, "comparison", "labels"], rows, [""] * len(rows))


def sensitivity_table(table: pd.DataFrame) -> Table | None:
    """Return, for each change that is called anywhere, its verdict under every variant."""
    if table.empty:
        return None
    keys = ["comparison", "labeller", "name"]
    changed = table["verdict"].isin(["gained", "lost", "changed, direction unclear"])
    called = set(zip(*(table.loc[changed, key] for key in keys), strict=True))
    variants = list(table["variant"].unique())
    rows = []
    for key, block in table.groupby(keys, sort=False):
        if key not in called:
            continue
        words = block.set_index("variant")["verdict"]
        robust = str(block["robust"].iloc[0])
        names = [str(part) for part in key]
        cells = [str(words.get(variant, "–")) for variant in variants]
        rows.append([readable(names[2]), names[0], names[1], *cells, robust])
    header = ["category", "comparison", "labels", *variants, "one direction"]
    return Table("Verdicts under other decisions", header, rows, [""] * len(rows))


def published_table(path: Path) -> Table:
    """Return every published quantity beside what was measured, with the verdict."""
    table = read_csv(path)
    rows = []
    for row in rows_of(table):
        low, high = row.number("low"), row.number("high")
        bounds = "" if math.isnan(low) else f"\n{number(low, 1, True)} … {number(high, 1, True)}"
        rows.append(
            [
                row.text("quantity"),
                f"{row.text('source')}, {row.text('where')}",
                f"{row.number('published'):g}".replace("-", "−"),
                (
                    "n/a" if math.isnan(row.number("measured")) else f"{row.number('measured'):.4g}"
                ).replace("-", "−")
                + bounds,
                row.text("unit"),
                row.text("verdict"),
                _text(row, "published_in_interval"),
                _text(row, "differs_from_no_change"),
                _text(row, "missing"),
            ]
        )
    header = ["quantity", "source", "published", "measured", "unit", "verdict"]
    header += ["published value in our interval", "ours differs from no change", "missing"]
    return Table("Published and measured", header, rows, [""] * len(rows))


def flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested JSON value as (path, text) pairs, in order."""
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in flatten(inner, f"{prefix} / {key}" if prefix else str(key))
        ]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if all(not isinstance(item, Mapping | list) for item in value):
            return [(prefix, ", ".join(map(str, value)))]
        return [pair for i, item in enumerate(value) for pair in flatten(item, f"{prefix} / {i}")]
    return [(prefix, "" if value is None else str(value))]
