"""Made-up changes on two axes: verdicts, and the documents and latents that carry them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tests.comparison.run_folder import CATEGORIES, GAINED, LOST, Run
from workflow_scripts.common import files
from workflow_scripts.common.tables import write_csv

PLACE = {
    "gained": (0.74, 0.5),
    "lost": (-0.62, 0.4),
    "used differently": (0.4, 0.01),
    "moved": (0.02, 0.3),
    "unchanged": (0.01, 0.02),
    "cannot tell": (0.05, 0.04),
}
"""Behaviour and representation of a label by its verdict."""
DOCUMENTS = 8
"""Documents per label."""
EFFECTS = ("behaviour", "representation", "distance", "signed_norm", "unique_mass", "delta_norm")
VERDICTS = {
    c: "gained" if c in GAINED else "lost" if c in LOST else "unchanged" for c in CATEGORIES
}


def change_rows(
    comparison: str, seed: int, labeller: str, verdicts: Mapping[str, str]
) -> list[dict[str, object]]:
    """Return rows of ``changes.csv``."""
    rng = np.random.default_rng([seed, *map(ord, comparison + labeller)])
    rows = []
    for label, verdict in verdicts.items():
        x, y = (rng.normal(value, 0.02) for value in PLACE[verdict])
        row: dict[str, object] = {
            "comparison": comparison,
            "baseline": "it",
            "candidate": "simpo",
            "seed": seed,
            "labeller": labeller,
            "label": label,
            "documents": 2 if verdict == "cannot tell" else 140,
            "tokens": 4000,
            "verdict": verdict,
        }
        for effect in EFFECTS:
            value = {"behaviour": x, "delta_norm": 0.5 + x / 20}.get(effect, y)
            ends = (value, value - 0.05, value + 0.05)
            row |= dict(zip((effect, f"{effect}_low", f"{effect}_high"), ends, strict=True))
        for effect, least in (("behaviour", 0.1), ("representation", 0.08)):
            row |= {f"{effect}_q": 0.004 if verdict in ("gained", "lost") else 0.7}
            row[f"{effect}_least"] = least
        rows.append(row)
    return rows


def answer(labeller: str, verdicts: Mapping[str, str]) -> dict[str, object]:
    """Return what one labeller answers."""
    words = sorted(set(verdicts.values()))
    called = ", ".join(
        label for label, verdict in verdicts.items() if verdict in ("gained", "lost")
    )
    return {
        "sentence": f"Against it, simpo changed {called or 'nothing'} (labels: {labeller}).",
        "comparison": "direct",
        "baseline": "it",
        "candidate": "simpo",
        "labeller": labeller,
        "verdicts": {word: [n for n, v in verdicts.items() if v == word] for word in words},
    }


def write_changes(
    run: Run,
    verdicts: Mapping[str, str] = VERDICTS,
    texts: Sequence[str] = ("Sorry, I cannot help with that.",),
) -> None:
    """Write changes, answer, labels and texts of documents, and what carries the changes."""
    folder = run.root / "comparison"
    topics = {f"sorry · cannot · {label}": verdict for label, verdict in verdicts.items()}
    rows = [
        row
        for comparison, seed, labeller, called in (
            ("direct", 0, "true", verdicts),
            ("direct", 0, "topics", topics),
            ("direct", 1, "true", verdicts),
            ("placebo", 0, "true", dict.fromkeys(verdicts, "unchanged")),
        )
        for row in change_rows(comparison, seed, labeller, called)
    ]
    write_csv(folder / "changes.csv", rows or pd.DataFrame(columns=columns()))
    answers = {"true": answer("true", verdicts), "topics": answer("topics", topics)}
    text = {"warning": "Not all of the text was read.", "description": "900 documents read."}
    whole = {**answers["true"], "by_labeller": answers, "text": text}
    files.write_json(folder / "answer.json", whole)
    write_documents(run, list(verdicts), texts)
    write_carriers(run, list(verdicts))


def columns() -> list[str]:
    """Return the columns of ``changes.csv``."""
    return list(change_rows("direct", 0, "true", {"a": "gained"})[0])


def write_documents(run: Run, labels: Sequence[str], texts: Sequence[str]) -> None:
    """Write documents, every third a chat, with labels, losses and weights."""
    count = DOCUMENTS * len(labels)
    numbers = np.arange(count)
    rng = np.random.default_rng(5)
    words = [texts[i % len(texts)] for i in range(count)]
    chat = numbers % 3 == 0
    messages = [json.dumps([{"role": "user", "content": text}]) for text in words]
    table = pd.DataFrame({"document": numbers, "source": "generated", "split": "score"})
    table["text"] = np.where(chat, "", words)
    table["messages"] = np.where(chat, messages, "")
    files.write_parquet(run.root / "dataset/documents.parquet", table)
    own = np.repeat(np.array(labels, dtype=object), DOCUMENTS)
    frame = pd.DataFrame({"document": numbers, "labeller": "true", "label": own})
    files.write_parquet(run.root / "dataset/labels.parquet", frame)
    measured = numbers[: -DOCUMENTS // 2] if count else numbers  # the rest was not run
    losses = [
        pd.DataFrame({"document": measured, "model": model, "tokens": 3}).assign(
            losses=list(rng.normal(2, 0.5, (len(measured), 3)).astype(np.float32))
        )
        for model in ("it", "simpo")
    ]
    files.write_parquet(run.losses, pd.concat(losses))
    energy = rng.uniform(20, 30, count)
    weights = pd.DataFrame({"document": numbers, "tokens": 30, "energy": energy})
    weights["difference"] = energy * rng.uniform(0.1, 1.2, count)
    files.write_parquet(run.root / "comparison/documents/direct_seed0.parquet", weights)


def write_carriers(run: Run, labels: Sequence[str]) -> None:
    """Write the latents that carry each label's difference, and contexts of the first ones.

    None of these has a context among those that were collected for explanations.
    """
    folder, stem = run.root / "latents/it_simpo/seed0", run.root / "comparison/documents"
    live = files.read_parquet(folder / "selection.parquet")["latent"]
    examples = files.read_parquet(folder / "examples.parquet")
    latents = sorted(set(live) - set(examples["latent"]))
    rows = [
        {
            "labeller": labeller,
            "label": label,
            "latent": int(latents[(i + rank) % len(latents)]),
            "part": 10.0 / rank,
            "share": 0.04 / rank,
            "own": 0.9 / rank,
            "delta_norm": 0.5 + 0.1 / rank,
            "rank": rank,
        }
        for labeller in ("true", "topics")
        for i, label in enumerate(labels)
        for rank in range(1, 21)
    ]
    names = ["labeller", "label", "latent", "part", "share", "own", "delta_norm", "rank"]
    table = pd.DataFrame(rows, columns=names)
    files.write_parquet(stem / "direct_seed0_carriers.parquet", table)
    positive = examples[(examples["kind"] == "positive") & (examples["split"] == "explain")]
    shown = sorted(set(table.loc[table["rank"] <= 3, "latent"]))
    contexts = [positive.head(2).assign(latent=latent) for latent in shown or latents[:1]]
    files.write_parquet(stem / "direct_seed0_contexts.parquet", pd.concat(contexts))
