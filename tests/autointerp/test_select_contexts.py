"""Explaining and scoring contexts share no document and no text, and every latent has a status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.autointerp import fixtures
from tests.autointerp.llm_run import CONCEPTS
from workflow_scripts.autointerp import select_contexts
from workflow_scripts.autointerp.context_schema import HELD_OUT, TRAIN

LATENTS = list(range(len(CONCEPTS)))
NEW = 100_000
"""Documents from this number on are copies."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    texts = fixtures.random_documents(600, CONCEPTS)
    planted = [fixtures.on_words(name, *words) for name, words in CONCEPTS.items()]
    path, _ = fixtures.make_examples(texts, planted, tmp_path_factory.mktemp("examples"))
    return pd.read_parquet(path)


def _run(folder: Path, examples: pd.DataFrame, *flags: str) -> int:
    examples.to_parquet(folder / "examples.parquet", index=False)
    return select_contexts.main(
        [
            *("--examples", str(folder / "examples.parquet"), "--seed", "0"),
            *("--contexts", str(folder / "contexts.parquet")),
            *("--latents", str(folder / "latents.parquet"), *flags),
        ]
    )


def _selected(folder: Path, examples: pd.DataFrame, *flags: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return the contexts and the status of each latent."""
    assert _run(folder, examples, *flags) == 0
    latents = pd.read_parquet(folder / "latents.parquet")
    return pd.read_parquet(folder / "contexts.parquet"), latents.set_index("latent")["status"]


def _documents(contexts: pd.DataFrame, latent: int, part: str) -> set[int]:
    mine = contexts[(contexts["latent"] == latent) & (contexts["part"] == part)]
    return set(mine["document"])


def _some(examples: pd.DataFrame, split: str, count: int = 5) -> pd.DataFrame:
    """Return the first ``count`` rows of each latent and kind in a split."""
    mine = examples[examples["split"] == split]
    return mine.groupby(["latent", "kind"], sort=False).head(count)


def test_parts_come_from_their_splits_and_share_no_document(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
    # Five documents of each kind are moved to the other side as well, with other text.
    given = examples.copy()
    shared = _some(given, "explain")
    given.loc[_some(given, "verify").index, "document"] = shared["document"].to_numpy()
    contexts, status = _selected(tmp_path, given)
    assert (status == "ok").all()
    for latent in LATENTS:
        mine = given[given["latent"] == latent]
        train, held_out = (_documents(contexts, latent, part) for part in (TRAIN, HELD_OUT))
        explain, verify = (
            set(mine.loc[mine["split"] == split, "document"]) for split in ("explain", "verify")
        )
        assert len(explain & verify) == 15
        assert train == explain
        assert held_out == verify - explain


def _five_grams(pieces: Sequence[str]) -> set[tuple[str, ...]]:
    words = "".join(pieces).lower().replace(".", " .").split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def _likest(contexts: pd.DataFrame) -> float:
    """Return the largest Jaccard similarity of 5-grams of words of two contexts of a latent."""
    largest = 0.0
    for _, mine in contexts.groupby("latent"):
        grams = [_five_grams(pieces) for pieces in mine["pieces"]]
        for i, one in enumerate(grams):
            for other in grams[:i]:
                largest = max(largest, len(one & other) / max(len(one | other), 1))
    return largest


def _same(pieces: Sequence[str]) -> list[str]:
    return list(pieces)


def _reworded(pieces: Sequence[str]) -> list[str]:
    return [*pieces[:30], " anew", *pieces[31:]]


@pytest.mark.parametrize("change", [_same, _reworded])
@pytest.mark.parametrize(
    ("source", "target"), [("explain", "explain"), ("verify", "verify"), ("explain", "verify")]
)
def test_near_duplicates_are_dropped_within_and_across_parts(
    examples: pd.DataFrame,
    tmp_path: Path,
    source: str,
    target: str,
    change: Callable[[Sequence[str]], list[str]],
) -> None:
    copies = _some(examples, source).assign(split=target)
    copies["document"] += NEW
    copies["pieces"] = copies["pieces"].map(change)
    assert _likest(pd.concat([examples, copies])) >= 0.8
    contexts, _ = _selected(tmp_path, pd.concat([examples, copies]))
    assert _likest(contexts) < 0.8
    plain, _ = _selected(tmp_path, examples)
    assert (contexts["document"] < NEW).all()
    assert len(contexts) == len(plain)


def _activate(examples: pd.DataFrame, place: int, value: float) -> pd.DataFrame:
    """Return the examples with an activation in the negative at ``place``."""
    negative = int(np.flatnonzero(examples["kind"] != "positive")[place])
    activations = [list(values) for values in examples["activations"]]
    activations[negative][3] = value
    return examples.assign(activations=pd.Series(activations, index=examples.index))


def _weaken(examples: pd.DataFrame) -> pd.DataFrame:
    """Return the examples with activations between 0.2 and 1."""
    factor = 1.0 - 0.8 * np.random.default_rng(0).random(len(examples))
    return examples.assign(activations=examples["activations"] * factor)


@pytest.mark.parametrize("value", [1e-7, 0.2])
def test_a_negative_that_rounding_lifts_is_dropped(
    examples: pd.DataFrame, tmp_path: Path, value: float
) -> None:
    given = _activate(_weaken(examples), 7, value)
    plain, _ = _selected(tmp_path, _weaken(examples))
    contexts, status = _selected(tmp_path, given)
    negatives = contexts[contexts["kind"] != "positive"]
    assert negatives["activations"].map(max).max() == 0.0
    assert len(contexts) == len(plain) - 1
    assert (status == "ok").all()


def test_a_clearly_active_negative_stops_the_run(
    examples: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, _activate(_weaken(examples), 7, 0.5)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: {tmp_path / 'examples.parquet'}: a negative context of latent 0"
    )
    assert line.endswith("collect the examples again")
    assert not (tmp_path / "contexts.parquet").exists()


@pytest.mark.parametrize("split", ["explain", "verify"])
@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_too_few_of_a_kind_in_a_part_are_insufficient(
    examples: pd.DataFrame, tmp_path: Path, split: str, kind: str
) -> None:
    positive = examples["kind"] == "positive"
    cut = (examples["split"] == split) & (positive == (kind == "positive"))
    place = examples.groupby(["latent", cut]).cumcount()
    few = examples["latent"].map({0: 4, 1: 5, 2: 0, 3: 99})
    contexts, status = _selected(tmp_path, examples[~cut | (place < few)])
    assert status.to_dict() == {
        0: "insufficient_examples",
        1: "ok",
        2: "insufficient_examples",
        3: "ok",
    }
    assert set(contexts["latent"]) == set(LATENTS)


def test_a_silent_positive_does_not_count(examples: pd.DataFrame, tmp_path: Path) -> None:
    given = examples.copy()
    silent = (given["latent"] == 0) & (given["kind"] == "positive")
    given.loc[silent, "activations"] = given.loc[silent, "activations"].map(np.zeros_like)
    contexts, status = _selected(tmp_path, given)
    assert status.to_dict() == {0: "insufficient_examples", 1: "ok", 2: "ok", 3: "ok"}
    assert set(contexts.loc[contexts["latent"] == 0, "kind"]) == {
        "random_negative",
        "hard_negative",
    }


def test_every_latent_has_one_status_however_many_there_are(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
    one = examples[examples["latent"] == 0].groupby(["split", "kind"]).head(6)
    wanted = [7 * i for i in range(1001)]
    given = pd.concat([one.assign(latent=latent) for latent in reversed(wanted)])
    few = (given["latent"] % 2 == 1) & (given["kind"] == "positive")
    contexts, _ = _selected(tmp_path, given[~few])
    latents = pd.read_parquet(tmp_path / "latents.parquet")
    assert latents["latent"].tolist() == wanted
    expected = ["insufficient_examples" if latent % 2 else "ok" for latent in wanted]
    assert latents["status"].tolist() == expected
    counted = contexts.groupby("latent").size()
    assert counted.tolist() == latents.filter(regex="^(train|held_out)_").sum(axis=1).tolist()
