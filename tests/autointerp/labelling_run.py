"""Labels of documents by an LLM, as Snakemake would have them made, against a given endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tests.autointerp import fixtures
from tests.autointerp.llm_run import ANNOTATORS, CONCEPTS, KEY_ENV
from tests.common.test_taxonomy import SHIPPED
from workflow_scripts.autointerp import build_label_requests, call_llm, collect_document_labels
from workflow_scripts.common import files
from workflow_scripts.dataset.shards import ROLES, SPLITS, TokenShard, write_shard

CATEGORIES = {name: f"about the {name}" for name in CONCEPTS}
WORDS = {word: name for name, words in CONCEPTS.items() for word in words}
"""What the oracle knows: word to category."""
SOON = ("--first-backoff", "0.02")


def made_texts(count: int = 60) -> dict[int, tuple[str, str]]:
    """Return text and planted category, empty for most, of documents by number."""
    texts = fixtures.random_documents(count, CONCEPTS)
    return {i: ("".join(d.pieces[1:]), d.category) for i, d in enumerate(texts)}


def write_text(
    folder: Path, texts: Mapping[int, str], splits: Sequence[str] = (), roles: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Write a table of documents and a token shard with four tokens of each.

    All are plain text of the score split unless `splits` or `roles` say otherwise.
    """
    numbers = list(texts)
    split = list(splits) or ["score"] * len(texts)
    role = [ROLES.index(name) for name in roles] or [ROLES.index("plain")] * len(texts)
    folder.mkdir(parents=True, exist_ok=True)
    documents, shard = folder / "documents.parquet", folder / "tokens.h5"
    table = {"document": numbers, "source": "own", "text": list(texts.values()), "messages": ""}
    files.write_parquet(documents, pd.DataFrame({**table, "split": split}))
    size = 4 * len(texts)
    write_shard(
        shard,
        TokenShard(
            ids=np.zeros(size, np.int32),
            row_starts=np.arange(0, size + 1, 4),
            row_document=np.array(numbers, np.int32),
            row_split=np.array([SPLITS.index(name) for name in split], np.uint8),
            role=np.repeat(role, 4).astype(np.uint8),
            template=np.zeros(size, np.bool_),
            category=np.full(size, -1, np.int16),
        ),
        {},
    )
    return documents, shard


def write_labels(path: Path, labels: Mapping[str, Mapping[int, str]]) -> Path:
    """Write labels of documents by labeller."""
    rows = [(d, name, label) for name, of in labels.items() for d, label in of.items()]
    columns = {"document": "int64", "labeller": "str", "label": "str"}
    files.write_parquet(path, pd.DataFrame(rows, columns=list(columns)).astype(columns))
    return path


@dataclass
class Labelling:
    """One run's folder, endpoint and settings; its text lies in the folder."""

    folder: Path
    url: str
    annotators: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: ANNOTATORS)
    categories: Mapping[str, str] = field(default_factory=lambda: CATEGORIES)
    more: tuple[str, ...] = ()
    """Further flags of build_label_requests."""

    def file(self, name: str) -> Path:
        """Return a file of the run."""
        return self.folder / name

    def build(self) -> int:
        """Build the requests."""
        if not self.file("labels0.parquet").exists():
            write_labels(self.file("labels0.parquet"), {})
        return build_label_requests.main(
            [
                *("--documents", str(self.file("documents.parquet"))),
                *("--tokens", str(self.file("tokens.h5"))),
                *("--labels", str(self.file("labels0.parquet")), "--taxonomy", str(SHIPPED)),
                *("--categories", json.dumps(self.categories)),
                *("--annotators", json.dumps(self.annotators), "--prices", "{}"),
                *("--seed", "0", "--code", "0", "--limit", "400", *self.more),
                *("--requests", str(self.file("requests.jsonl"))),
                *("--plan", str(self.file("plan.json"))),
            ]
        )

    def call(self, *flags: str) -> int:
        """Call the endpoint."""
        return call_llm.main(
            [
                *("--requests", str(self.file("requests.jsonl"))),
                *("--responses", str(self.file("responses.jsonl"))),
                *("--ledger", str(self.file("ledger.csv"))),
                *("--manifest", str(self.file("manifest.json"))),
                *("--cache", str(self.file("cache")), "--base-url", self.url),
                *("--key-env", KEY_ENV, "--headers", "{}", "--prices", "{}", *SOON, *flags),
            ]
        )

    def collect(self) -> int:
        """Collect the labels."""
        return collect_document_labels.main(
            [
                *("--requests", str(self.file("requests.jsonl"))),
                *("--responses", str(self.file("responses.jsonl")), "--seed", "0"),
                *("--answers", str(self.file("answers.parquet"))),
                *("--labels", str(self.file("labels.parquet"))),
                *("--summary", str(self.file("agreement.json"))),
            ]
        )

    def everything(self) -> None:
        """Run all steps."""
        assert self.build() == 0
        assert self.call() == 0
        assert self.collect() == 0

    def labels(self) -> dict[int, str]:
        """Return the labels by document."""
        table = pd.read_parquet(self.file("labels.parquet"))
        assert set(table["labeller"]) <= {"llm"}
        return dict(zip(table["document"].tolist(), table["label"].tolist(), strict=True))

    def summary(self) -> dict[str, object]:
        """Return counts and agreement."""
        facts: dict[str, object] = files.read_json(self.file("agreement.json"))
        return facts
