"""The latent browser's data: one table per crosscoder, in columns, and the contexts of latents."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice, permutations
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workflow_scripts.common import files
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.common.characters import hidden
from workflow_scripts.common.labellers import ANSWERED

CHANCE = 0.05
"""Share of random directions up to which a latent's first token stands out."""


class Column(TypedDict):
    """One column of the browser's table; ``digits`` is None for text."""

    id: str
    label: str
    digits: int | None
    values: Sequence[str | float | None]


class Context(TypedDict):
    """One context: token numbers (into ``pieces``) and the activations that are not 0."""

    split: str
    document: int
    tokens: list[int]
    active: list[tuple[int, float]]


class Browser(TypedDict):
    """All that the page knows about one crosscoder."""

    fit: str
    seed: int
    layer: int | None
    models: Sequence[str]
    columns: list[Column]
    pieces: list[str]
    contexts: dict[str, list[Context]]
    maxima: dict[str, float]
    live: int
    """live latents, of which the page may hold a part"""


def browser(fit: str, files_of: FitFiles, contexts: int, most: int) -> Browser:
    """Return the browser's data of a fit's first seed, with so many contexts per latent.

    At most so many latents: those with contexts first, then unique ones, then the most frequent.
    """
    seed, source = next(iter(files_of.seeds.items()))
    selection = files.read_parquet(source.selection)
    latents = files.read_parquet(source.latents)
    live = selection[["latent", "unique_to"]].merge(latents, on="latent")
    examples: dict[str, list[Context]] = {}
    maxima: dict[str, float] = {}
    pieces: list[str] = []
    for path in (source.carriers, source.examples):  # where a latent is in both, the latter counts
        if path is not None:
            own, largest, texts = read_contexts(path, contexts, len(pieces))
            examples, maxima, pieces = {**examples, **own}, {**maxima, **largest}, pieces + texts
    count = len(live)
    live = _foremost(live, live["latent"].astype(str).isin(list(examples)), most)
    held = set(live["latent"].astype(str))
    for paths, reader in (
        (source.labels, _label_columns),
        (source.explanations, _explanation_columns),
        (source.scores, _score_columns),
    ):
        for name, values in reader(paths).items():
            live[name] = live["latent"].map(values)
    with_contexts = live["latent"].astype(str).isin(list(examples))
    for name, words in promoted_columns(source.promoted).items():
        live[name] = live["latent"].where(with_contexts).map(words)
    return {
        "fit": fit,
        "seed": seed,
        "layer": files_of.layer,
        "models": files_of.models,
        "columns": _columns(live, files_of.models),
        "pieces": pieces,
        "contexts": {latent: own for latent, own in examples.items() if latent in held},
        "maxima": maxima,
        "live": count,
    }


def _foremost(live: pd.DataFrame, has_contexts: pd.Series[bool], most: int) -> pd.DataFrame:
    """Return the latents to show, by number."""
    ranks = pd.DataFrame(
        {"contexts": has_contexts, "unique": live["unique_to"] != "", "rate": live["firing_rate"]}
    )
    keys = ["contexts", "unique", "rate"]
    order = ranks.sort_values(keys, ascending=False, kind="stable").index
    return live.loc[np.sort(order[:most])].reset_index(drop=True)


def read_contexts(
    path: Path, count: int, offset: int = 0
) -> tuple[dict[str, list[Context]], dict[str, float], list[str]]:
    """Return each latent's strongest contexts, its largest activation, and the tokens' texts.

    Two thirds are the strongest, the rest spread over the other positive ones. Tokens are numbered
    from ``offset`` on.
    """
    columns = ["latent", "split", "kind", "document", "max_activation", "latent_max"]
    table = files.read_parquet(path, columns)
    positive = table[table["kind"] == "positive"].sort_values(
        ["latent", "max_activation"], ascending=[True, False], kind="stable"
    )
    latents, first, sizes = np.unique(positive["latent"], return_index=True, return_counts=True)
    places = [a + _shown(int(size), count) for a, size in zip(first, sizes, strict=True)]
    chosen = positive.iloc[np.concatenate([np.zeros(0, np.int64), *places])]
    lists, pieces = _read_lists(path, chosen.index.to_numpy(), offset)
    contexts: Iterator[Context] = (
        {"split": str(split), "document": int(document), "tokens": tokens, "active": active}
        for split, document, (tokens, active) in zip(
            chosen["split"], chosen["document"], lists, strict=True
        )
    )
    contexts_of = {
        str(latent): list(islice(contexts, len(own)))
        for latent, own in zip(latents, places, strict=True)
    }
    largest = positive.groupby("latent", sort=True)["latent_max"].max()
    maxima = {str(latent): _rounded(float(value), 4) or 0.0 for latent, value in largest.items()}
    return contexts_of, maxima, pieces


def _shown(size: int, count: int) -> NDArray[np.int64]:
    """Return which of ``size`` contexts, the strongest first, are shown."""
    top = min(size, math.ceil(count * 2 / 3))
    rest = np.unique(np.linspace(top, size - 1, count - top).round().astype(np.int64))
    return np.concatenate([np.arange(top), rest[(rest >= top) & (rest < size)]])


def _read_lists(
    path: Path, rows: NDArray[np.int64], offset: int
) -> tuple[Iterator[tuple[list[int], list[tuple[int, float]]]], list[str]]:
    """Return an iterator over the tokens and activations of some rows, and the tokens' texts."""
    table = pq.read_table(path, columns=["pieces", "activations"]).take(pa.array(rows))
    lengths = pc.list_value_length(table["pieces"]).to_numpy()
    ends = np.cumsum(lengths)
    texts = pc.list_flatten(table["pieces"]).unify_dictionaries().combine_chunks()
    texts = texts.dictionary_encode()
    numbers = texts.indices.to_numpy() + offset
    values = pc.list_flatten(table["activations"]).to_numpy()

    def read() -> Iterator[tuple[list[int], list[tuple[int, float]]]]:
        for start, end in zip(ends - lengths, ends, strict=True):
            own = values[start:end]
            active = np.flatnonzero(own)
            pairs = zip(active.tolist(), own[active].tolist(), strict=True)
            yield numbers[start:end].tolist(), [(i, _rounded(v, 3) or 0.0) for i, v in pairs]

    return read(), texts.dictionary.to_pylist()


def _columns(live: pd.DataFrame, models: Sequence[str]) -> list[Column]:
    """Return the table's columns: what is known of every live latent."""
    columns = [
        _column(live, "latent", "latent", 0),
        _column(live, "unique_to", "unique to", None),
    ]
    named = [name for name in live.columns if str(name).startswith("category ")]
    if "true_category" in live.columns:
        columns.append(_column(live, "true_category", "true category", None))
    columns += [_column(live, name, name, None) for name in named]
    columns += [
        _column(live, str(name), str(name), None)
        for name in live.columns
        if str(name).startswith("explanation ")
    ]
    columns += [
        _column(live, str(name), str(name), 2)
        for name in live.columns
        if str(name).startswith("AUROC ")
    ]
    columns += [
        _column(live, str(name), str(name), None)
        for name in live.columns
        if str(name).startswith(("promoted by ", "suppressed by "))
    ]
    for a, b in combinations(models, 2):
        columns.append(_column(live, f"delta_norm_{a}_{b}", f"Δnorm {a}→{b}", 3))
        columns.append(_column(live, f"cosine_{a}_{b}", f"cosine {a}·{b}", 3))
    for own, other in permutations(models, 2):
        pair, claim = f"{own}_vs_{other}", f"{own} against {other}"
        columns += [
            _column(live, f"nu_r_{pair}", f"νʳ {claim}", 3),
            _column(live, f"nu_r_{pair}_se", f"± νʳ {claim}", 3),
            _column(live, f"nu_e_{pair}", f"νᵋ {claim}", 3),
            _column(live, f"nu_e_{pair}_se", f"± νᵋ {claim}", 3),
            _column(live, f"q_{pair}", f"q {claim}", 3),
            _column(live, f"status_{pair}", f"status {claim}", None),
        ]
    for name, label, digits in (
        ("firing_rate", "firing rate", 5),
        ("documents", "documents", 0),
        ("activation_mean", "mean activation", 3),
        ("activation_max", "max activation", 3),
        ("template_share", "template share", 2),
    ):
        columns.append(_column(live, name, label, digits))
    return columns


def _column(table: pd.DataFrame, name: str, label: str, digits: int | None) -> Column:
    values = table[name] if name in table.columns else pd.Series([None] * len(table))
    shown: list[str | float | None]
    if digits is None:
        shown = ["" if pd.isna(value) else str(value) for value in values]
    else:
        shown = [_rounded(float(str(value)), 4) if not pd.isna(value) else None for value in values]
    return {"id": name, "label": label, "digits": digits, "values": shown}


def _rounded(value: float, digits: int) -> float | None:
    """Return a number to so many significant digits; None for what JSON cannot hold."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def first_answers(paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Return, by annotator, the first answered row of each latent."""
    if not paths:
        return {}
    table = pd.concat([files.read_parquet(path) for path in paths], ignore_index=True)
    table = table[table["status"].isin(ANSWERED)].drop_duplicates(["annotator", "latent"])
    return {str(name): rows.set_index("latent") for name, rows in table.groupby("annotator")}


def _label_columns(paths: Sequence[Path]) -> dict[str, pd.Series[str]]:
    return {f"category by {n}": rows["category"] for n, rows in first_answers(paths).items()}


def _explanation_columns(paths: Sequence[Path]) -> dict[str, pd.Series[str]]:
    return {f"explanation by {n}": rows["explanation"] for n, rows in first_answers(paths).items()}


def _score_columns(paths: Sequence[Path]) -> dict[str, pd.Series[float]]:
    columns = {}
    for name, rows in first_answers(paths).items():
        columns[f"AUROC by {name}"] = rows["auroc"]
        columns[f"AUROC by {name}, low"] = rows["auroc_low"]
        columns[f"AUROC by {name}, high"] = rows["auroc_high"]
    return columns


def promoted_columns(path: Path | None) -> dict[str, pd.Series[str]]:
    """Return in words, by latent, the tokens that its direction in each model acts on."""
    if path is None:
        return {}
    table = files.read_parquet(path)
    chance = (" (no more than by chance)" if p > CHANCE else "" for p in table["p"])
    words = (" ".join(f"«{token}»" for token in tokens) for tokens in table["tokens"])
    table["words"] = [text + note for text, note in zip(words, chance, strict=True)]
    return {
        f"{side} by {model}": rows.set_index("latent")["words"]
        for (model, side), rows in table.groupby(["model", "side"], sort=True)
    }


def llm_annotators(fits: Mapping[str, FitFiles]) -> list[str]:
    """Return the annotators of any fit that are LLMs."""
    names: set[str] = set()
    for fit in fits.values():
        for source in fit.seeds.values():
            for path in (*source.labels, *source.explanations):
                table = files.read_parquet(path)
                names.update(table.loc[table["llm_used"].astype(bool), "annotator"].astype(str))
    return sorted(names)


def to_json(value: object) -> str:
    """Return JSON that can stand in a script element: it holds no tag and no address.

    ``<`` and the line separators that end a JavaScript line are written as escapes, and ``://``
    with escaped slashes, so that nothing in the data can close the element or look like a link.
    Characters that cannot be seen stand as their number between U+E000 and U+E001, which are
    private and so occur nowhere else; JSON itself escapes the controls of ASCII.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = hidden().sub(lambda match: f"\ue000{ord(match[0]):04X}\ue001", text)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.replace("://", ":\\/\\/")
