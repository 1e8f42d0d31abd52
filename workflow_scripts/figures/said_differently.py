"""What two models predict and say differently, as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.common import files
from workflow_scripts.common.settings import Settings
from workflow_scripts.common.tables import read_csv
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.figures.category_rows import rows_of
from workflow_scripts.figures.report_tables import Table, interval, number
from workflow_scripts.figures.style import readable

SHADED, LONGEST = 5, 120
"""Labels of which the page shows a text, and its tokens."""
ANSWERS, CHARACTERS = 8, 400
"""Labels of which the page shows a pair of answers, and characters of each."""
FULL = 2.0
"""Divergence in nats of a token that is shaded fully."""


class Said(Settings):
    """What the answering comparison's models predict and say differently."""

    predictions: Path | None = None
    """how far predictions are apart by label (CSV)"""
    predicted_tokens: Path | None = None
    """tokens that are predicted more and less by label (Parquet)"""
    predicted_rows: Path | None = None
    """the divergence of every token (Parquet)"""
    answers: Path | None = None
    """both models' answers (Parquet)"""
    answer_rates: Path | None = None
    """how answers differ by label (CSV)"""


@dataclass(frozen=True)
class ShadedText:
    """A document with how far apart the predictions of its tokens are, from 0 to 1."""

    label: str
    document: int
    divergence: str
    pieces: list[tuple[str, str]]


@dataclass(frozen=True)
class AnswerPair:
    """What both models answer to one prompt."""

    label: str
    document: int
    prompt: str
    baseline: str
    candidate: str


@dataclass(frozen=True)
class Differences:
    """The parts of the page's section; empty where nothing was measured."""

    tokens: Table | None = None
    texts: tuple[ShadedText, ...] = ()
    rates: Table | None = None
    answers: tuple[AnswerPair, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tokens or self.rates)


def read_differences(said: Said, labels: list[Path], labeller: str) -> Differences:
    """Return what the page shows of one labeller's labels, those furthest apart first."""
    known = read_labels(labels)
    known = known[known["labeller"] == labeller]
    tokens, texts = None, tuple[ShadedText, ...]()
    if said.predictions and said.predicted_tokens and said.predicted_rows:
        apart = read_csv(said.predictions)
        apart = apart[apart["labeller"] == labeller].sort_values("divergence", ascending=False)
        named = files.read_parquet(said.predicted_tokens)
        tokens = token_table(apart, named[named["labeller"] == labeller])
        rows = files.read_parquet(said.predicted_rows).merge(known, on="document")
        texts = shaded_texts([str(label) for label in apart["label"][:SHADED]], rows)
    rates, answers = None, tuple[AnswerPair, ...]()
    if said.answers and said.answer_rates:
        measured = read_csv(said.answer_rates)
        rates = rate_table(measured[measured["labeller"] == labeller])
        answers = answer_pairs(files.read_parquet(said.answers).merge(known, on="document"))
    return Differences(tokens, texts, rates, answers)


def token_table(apart: pd.DataFrame, named: pd.DataFrame) -> Table:
    """Return the tokens of each label."""
    words = named.set_index(["label", "read", "side"])["tokens"].to_dict()
    keys = [(read, side) for read in READ for side in ("promoted", "suppressed")]
    rows = [
        [
            readable(row.text("label")),
            f"{number(row.number('divergence'), 3)}\n{interval(row, 'divergence', 1, 3)}",
            *(quoted(words.get((row.text("label"), *key), ())) for key in keys),
        ]
        for row in rows_of(apart)
    ]
    header = ["category", "divergence, nats per token"]
    header += [READ[read].format(side) for read, side in keys]
    return Table("Tokens that the candidate predicts more and less", header, rows)


READ = {"prediction": "predictions {}", "activation": "difference of activations {}"}


def quoted(tokens: object) -> str:
    """Return tokens in words, with their blanks."""
    return " ".join(f"«{token}»" for token in list(tokens))  # type: ignore[call-overload]


def shaded_texts(labels: list[str], rows: pd.DataFrame) -> tuple[ShadedText, ...]:
    """Return the document of each label on which the predictions are furthest apart."""
    texts = []
    for label in labels:
        own = rows[rows["label"] == label].sort_values("divergence", ascending=False)
        for row in own.head(1).to_dict("records"):
            pairs = zip(row["pieces"][:LONGEST], row["divergences"][:LONGEST], strict=True)
            pieces = [(str(p), f"{min(float(d) / FULL, 1):.2f}") for p, d in pairs]
            apart = number(float(row["divergence"]), 2)
            texts.append(ShadedText(readable(label), int(row["document"]), apart, pieces))
    return tuple(texts)


def rate_table(measured: pd.DataFrame) -> Table:
    """Return the distances of answers, and what else differs beyond chance, by label."""
    distances = measured[measured["measure"] == "distance"]
    distances = distances.sort_values("difference", ascending=False)
    rows = []
    for row in rows_of(distances):
        own = measured[measured["label"] == row.text("label")]
        differs = own[(own["measure"] != "distance") & ((own["low"] > 0) | (own["high"] < 0))]
        rows.append(
            [
                readable(row.text("label")),
                str(int(row.number("documents"))),
                f"{number(row.number('difference'))} ({number(row.number('low'))} … "
                f"{number(row.number('high'))})",
                "\n".join(
                    f"{readable(other.text('measure'))}: {number(other.number('baseline'))} → "
                    f"{number(other.number('candidate'))}"
                    for other in rows_of(differs)
                )
                or "–",
            ]
        )
    header = ["category", "prompts", "distance of answers", "differs (lengths, shares)"]
    return Table("How the answers differ", header, rows)


def answer_pairs(answers: pd.DataFrame) -> tuple[AnswerPair, ...]:
    """Return the most distant pair of answers of the labels whose answers differ most."""
    order = answers.groupby("label")["distance"].mean().sort_values(ascending=False, kind="stable")
    pairs = []
    for label in order.index[:ANSWERS]:
        own = answers[answers["label"] == label].sort_values("distance", ascending=False)
        first = own.iloc[0]
        pairs.append(
            AnswerPair(
                readable(str(label)),
                int(first["document"]),
                f"…{str(first['prompt'])[-CHARACTERS:]}",
                str(first["baseline"])[:CHARACTERS],
                str(first["candidate"])[:CHARACTERS],
            )
        )
    return tuple(pairs)
