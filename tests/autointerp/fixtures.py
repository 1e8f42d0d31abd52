"""Small synthetic examples in the format that the stage `latents` leaves, with a planted truth."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LENGTH = 64
PLAIN, USER, ASSISTANT = 0, 2, 3
_PIECE = re.compile(r" ?[^\W\d_]+|'[a-z]+| ?\d|\s*\n|\s|_|[^\w\s]")


@dataclass
class Document:
    """Pieces of one document with their roles, template marks and category."""

    category: str
    pieces: list[str] = field(default_factory=list)
    role: list[int] = field(default_factory=list)
    template: list[bool] = field(default_factory=list)

    def add(self, text: str, role: int, template: bool = False) -> None:
        """Append text, split as a subword tokenizer would split it."""
        pieces = [text] if template else split_pieces(text)
        self.pieces += pieces
        self.role += [role] * len(pieces)
        self.template += [template] * len(pieces)


def split_pieces(text: str) -> list[str]:
    """Split text into pieces whose concatenation is the text; long words fall in two."""
    pieces: list[str] = []
    for piece in _PIECE.findall(text):
        cut = 6 if len(piece) > 9 else len(piece)
        pieces += [part for part in (piece[:cut], piece[cut:]) if part]
    return pieces


def plain_document(category: str, text: str) -> Document:
    """Return a plain document behind a BOS token."""
    document = Document(category)
    document.add("<bos>", PLAIN, template=True)
    document.add(text, PLAIN)
    return document


def chat_document(category: str, question: str, answer: str) -> Document:
    """Return a chat document in the manner of Gemma's template."""
    document = Document(category)
    document.add("<bos>", USER, template=True)
    for role, name, text in ((USER, "user", question), (ASSISTANT, "model", answer)):
        for token in ("<start_of_turn>", name, "\n"):
            document.add(token, role, template=True)
        document.add(text, role)
        for token in ("<end_of_turn>", "\n"):
            document.add(token, role, template=True)
    return document


@dataclass(frozen=True)
class Planted:
    """A synthetic latent: how strongly it fires on token ``i`` of a document (0 = silent)."""

    name: str
    fires: Callable[[Document, int], float]
    unique_to: str = ""


def on_words(name: str, *words: str) -> Planted:
    """Return a latent that fires on the given words."""
    wanted = set(words)

    def fires(document: Document, i: int) -> float:
        return 1.0 if document.pieces[i].strip().lower() in wanted else 0.0

    return Planted(name, fires)


def on_category(name: str, category: str, share: float = 0.3, salt: int = 0) -> Planted:
    """Return a latent that fires on a random share of a category's content tokens."""

    def fires(document: Document, i: int) -> float:
        if document.category != category or document.template[i]:
            return 0.0
        draw = random.Random(f"{salt}:{document.pieces[i].lower()}:{i % 3}").random()
        return 1.0 - draw if draw < share else 0.0

    return Planted(name, fires, "")


def on_suffix(name: str, suffix: str) -> Planted:
    """Return a latent that fires on words with a suffix."""

    def fires(document: Document, i: int) -> float:
        word = document.pieces[i].strip()
        return 1.0 if len(word) > len(suffix) + 2 and word.endswith(suffix) else 0.0

    return Planted(name, fires)


@dataclass
class _Rows:
    rows: list[dict[str, object]] = field(default_factory=list)

    def _stratum(self, kind: str) -> str:
        return ("top", "quantile")[len(self.rows) % 2] if kind == "positive" else "none"

    def add(
        self,
        latent: int,
        planted: Planted,
        document: int,
        source: Document,
        values: NDArray[np.float32],
        split: str,
        kind: str,
        peak: int,
    ) -> None:
        start = max(0, min(peak - 48, len(source.pieces) - LENGTH))
        window = slice(start, start + LENGTH)
        shown = values[window]
        self.rows.append(
            {
                "latent": latent,
                "unique_to": planted.unique_to,
                "sample_weight": 1.0,
                "split": split,
                "kind": kind,
                "stratum": self._stratum(kind),
                "document": document,
                "pieces": source.pieces[window],
                "activations": shown.tolist(),
                "template": source.template[window],
                "role": source.role[window],
                "peak": int(np.argmax(shown)),
                "max_activation": float(shown.max()),
                "latent_max": 1.0,
            }
        )


def make_examples(
    documents: Sequence[Document],
    latents: Sequence[Planted],
    folder: Path,
    *,
    train: tuple[int, int, int] = (20, 10, 10),
    held_out: tuple[int, int, int] = (25, 13, 12),
    background: int = 400,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write `examples.parquet` and `background.parquet`; counts are positive, random, hard."""
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(documents))
    parts = {"explain": half[: len(half) // 2], "verify": half[len(half) // 2 :]}
    bags = [{piece.strip().lower() for piece in d.pieces} for d in documents]
    rows = _Rows()
    for number, planted in enumerate(latents):
        values = [
            np.array([planted.fires(d, i) for i in range(len(d.pieces))], np.float32)
            for d in documents
        ]
        for split, counts in (("explain", train), ("verify", held_out)):
            mine = rng.permutation(parts[split])
            positive = [d for d in mine if values[d].max() > 0][: counts[0]]
            negative = [d for d in mine if values[d].max() == 0]
            near = set().union(*(bags[d] for d in positive)) if positive else set()
            hard = sorted(negative, key=lambda d: -len(bags[d] & near) / len(bags[d]))
            chosen = [
                *((d, "positive") for d in positive),
                *((d, "hard_negative") for d in hard[: counts[2]]),
                *((d, "random_negative") for d in hard[counts[2] :][-counts[1] :]),
            ]
            for d, kind in chosen:
                peak = int(values[d].argmax()) if kind == "positive" else len(values[d]) // 2
                rows.add(number, planted, int(d), documents[d], values[d], split, kind, peak)
    folder.mkdir(parents=True, exist_ok=True)
    examples, reference = folder / "examples.parquet", folder / "background.parquet"
    pd.DataFrame(rows.rows).to_parquet(examples, index=False)
    pool = rng.permutation(parts["explain"])[:background]
    pd.DataFrame(
        {
            "document": pool,
            "pieces": [documents[d].pieces[:LENGTH] for d in pool],
            "template": [documents[d].template[:LENGTH] for d in pool],
            "role": [documents[d].role[:LENGTH] for d in pool],
        }
    ).to_parquet(reference, index=False)
    return examples, reference


_COMMON = (
    "the of and to in that was for on with as at by this from they be or had not were been has "
    "more when some out so up if about into than its only other new could time these two may then "
    "do first any my now such like our over man even most made after also did many before must "
    "through back years where much your way well down should because each just those people how "
    "too little state good very make world still own see men work long get here between both life "
    "being under never day same another know while last might us great old year off come since"
)
COMMON = _COMMON.split()


def random_documents(
    count: int, concepts: Mapping[str, Sequence[str]], seed: int = 0, words: int = 60
) -> list[Document]:
    """Return plain documents of common words; each holds words of about one concept in three."""
    rng = random.Random(seed)
    names = [*concepts, *["" for _ in range(2 * len(concepts))]]
    documents = []
    for _ in range(count):
        name = rng.choice(names)
        text = [rng.choice(COMMON) for _ in range(words)]
        if name:
            for place in rng.sample(range(words), 4):
                text[place] = rng.choice(concepts[name])
        documents.append(plain_document(name, " ".join(text) + "."))
    return documents
