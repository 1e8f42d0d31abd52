"""Windows in which latents are shown, on activations whose every value is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from tests.latents.test_score_latents import MemoryStore
from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.common import cli
from workflow_scripts.common.device import Compute
from workflow_scripts.crosscoder.model import Crosscoder, Weights
from workflow_scripts.latents import collect_examples as step
from workflow_scripts.latents import example_contexts
from workflow_scripts.latents.example_contexts import EXPLAIN, VERIFY, find_peaks, peaks_of
from workflow_scripts.latents.settings import ExampleCounts, Examples
from workflow_scripts.latents.token_context import TokenContext

DOCUMENTS, LENGTH, WINDOW = 120, 40, 16
FIRING = 30  # documents in which latent 0 fires, the later the more strongly
COUNTS = ExampleCounts(top=4, quantile=6, random=5, hard=5)
SETTINGS = Examples(shared_latents=5, window=WINDOW, explain=COUNTS, verify=COUNTS, pool=200)


@dataclass
class SplitStore(MemoryStore):
    """Even documents are explained, odd ones verify; each document's first token is dropped."""

    models = ("a", "b")
    width = 4

    def rows(self, split: str) -> NDArray[np.int64]:
        tokens = np.arange(len(self.x), dtype=np.int64)
        odd = tokens // LENGTH % 2 == 1
        kept: NDArray[np.int64] = tokens[(tokens % LENGTH > 0) & (odd == (split == VERIFY))]
        return kept


def peak_of(document: int) -> int:
    """Return the place of latent 0's strongest token in a document."""
    return 2 + document % (LENGTH - 2)


def planted() -> tuple[SplitStore, Crosscoder, TokenContext]:
    """Latent 0 fires in the first documents, latent 1 nowhere; documents 0-59 share words."""
    x = np.zeros((DOCUMENTS * LENGTH, 2, 4), dtype=np.float32)
    for document in range(FIRING * 2):
        if document % 4 < 2:
            x[document * LENGTH + peak_of(document), 0, 0] = 2.0 + document
            x[document * LENGTH + peak_of(document) - 1, 0, 0] = 1.0
    encoder = torch.zeros(2, 2, 4)
    encoder[0, 0, 0] = encoder[1, 1, 1] = 1.0
    decoder = encoder.flatten(1).clone()
    weights = Weights(encoder.flatten(1), torch.zeros(2), decoder, torch.zeros(8), 2)
    crosscoder = Crosscoder(["a", "b"], weights, 0.5, torch.zeros(2, 4), torch.ones(2), 1, {})
    tokens = DOCUMENTS * LENGTH
    row = np.repeat(np.arange(DOCUMENTS), LENGTH)
    words = np.random.default_rng(0).integers(0, 20, tokens) + 20 * (row >= FIRING * 2)
    context = TokenContext(
        ids=words.astype(np.int32),
        document=row.astype(np.int32),
        position=np.tile(np.arange(LENGTH), DOCUMENTS).astype(np.int32),
        role=np.zeros(tokens, dtype=np.uint8),
        template=np.zeros(tokens, dtype=bool),
        category=np.zeros(tokens, dtype=np.int16),
        row_starts=np.arange(0, tokens + 1, LENGTH),
        categories=["only"],
    )
    return SplitStore(x), crosscoder, context


class Letters:
    """A tokenizer whose ids are letters."""

    def encode(self, text: str, **_: object) -> list[int]:
        return [ord(letter) - 65 for letter in text]

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(chr(65 + i) for i in ids)


def collected(folder: Path) -> pd.DataFrame:
    """Run the step on what is planted; return the examples."""
    store, crosscoder, context = planted()
    crosscoder.save(folder)
    selection = pd.DataFrame(
        {"latent": [0, 1], "unique_to": ["a", ""], "unique_a_vs_b": [True, False]}
    )
    selection.to_parquet(folder / "selection.parquet")
    paths = [folder / f"{name}.parquet" for name in ("examples", "background", "sampled")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreInputs, "open", lambda self: store)
        patch.setattr(step, "read_context", lambda shards: context)
        patch.setattr(step, "load_tokenizer", lambda path: Letters())
        step.collect_examples(
            StoreInputs(activations={}, normalizers={}, layer=1),
            [],
            folder,
            folder / "selection.parquet",
            folder / "model.json",
            SETTINGS,
            0,
            Compute(device="cpu"),
            *paths,
        )
    frame: pd.DataFrame = pq.read_table(paths[0]).to_pandas()
    return frame


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("examples")
    examples = collected(folder)
    assert pd.read_parquet(folder / "sampled.parquet").values.tolist() == [[0, 1.0], [1, 1.0]]
    background = pq.read_table(folder / "background.parquet")
    assert background.num_rows == DOCUMENTS // 2
    assert set(np.asarray(background["document"]) % 2) == {0}
    return examples


def of(table: pd.DataFrame, latent: int, kind: str, stratum: str, split: str) -> pd.DataFrame:
    chosen = (table["latent"] == latent) & (table["kind"] == kind)
    return table[chosen & (table["stratum"] == stratum) & (table["split"] == split)]


def test_columns_are_documented(table: pd.DataFrame) -> None:
    text = Path(step.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    section = next(p for p in text.split("\n# ") if p.startswith("`<fit>/seed<S>/examples"))
    told = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\|([^|]*)\|", section, re.M)))
    generic = {re.sub(r"^part_.*", "part_<m>", name) for name in table.columns}
    assert set(told) == generic - {"sample_weight"}


def test_parts_of_the_models_stand_beside_the_peak(table: pd.DataFrame) -> None:
    shown = table[(table["latent"] == 0) & (table["kind"] == "positive")]
    np.testing.assert_allclose(shown["part_a"], shown["max_activation"], rtol=1e-6)
    assert (shown["part_b"] == 0).all()
    assert (shown["part_a"] >= 2).all()


@pytest.mark.parametrize("split", [EXPLAIN, VERIFY])
def test_strongest_documents_come_first_and_each_document_once(
    table: pd.DataFrame, split: str
) -> None:
    odd = split == VERIFY
    firing = [d for d in range(FIRING * 2) if d % 4 < 2 and d % 2 == odd]
    top = of(table, 0, "positive", "top", split)
    assert top["document"].tolist() == sorted(firing)[::-1][:4]
    quantile = of(table, 0, "positive", "quantile", split)
    assert len(quantile) == 6
    assert set(quantile["document"]) < set(firing) - set(top["document"])
    assert quantile["document"].is_unique
    # One draw from each sixth of what the strongest leave.
    rank = [sorted(set(firing) - set(top["document"]))[::-1].index(d) for d in quantile["document"]]
    edges = np.arange(7) * (len(firing) - 4) // 6
    assert np.searchsorted(edges, rank, side="right").tolist() == [1, 2, 3, 4, 5, 6]


def test_positive_windows_hold_the_peak_with_context_before_it(table: pd.DataFrame) -> None:
    positive = table[(table["kind"] == "positive")]
    for _, window in positive.iterrows():
        place = peak_of(window.document)
        assert window.end - window.start == WINDOW
        assert window.start % LENGTH == min(max(0, place - 12), LENGTH - WINDOW)
        assert window.start + window.peak == window.document * LENGTH + place
        assert window.max_activation == pytest.approx(2.0 + window.document)
        expected = np.zeros(WINDOW)
        expected[window.peak] = 2.0 + window.document
        # The weaker token is dropped where it is a document's first one.
        if window.peak and window.start + window.peak - 1 != window.document * LENGTH:
            expected[window.peak - 1] = 1.0
        assert np.asarray(window.activations).tolist() == expected.tolist()


@pytest.mark.parametrize("split", [EXPLAIN, VERIFY])
def test_negatives_are_silent_and_the_hard_ones_alike(table: pd.DataFrame, split: str) -> None:
    random = of(table, 0, "random_negative", "none", split)
    hard = of(table, 0, "hard_negative", "none", split)
    assert len(random) == len(hard) == 5
    both = pd.concat([random, hard])
    assert both["document"].is_unique
    assert (both["max_activation"] == 0).all()
    assert not ((both["document"] < FIRING * 2) & (both["document"] % 4 < 2)).any()
    # Only the first documents are written in the words of those in which the latent fires.
    assert (hard["document"] < FIRING * 2).all()
    assert (both["document"] % 2 == (split == VERIFY)).all()


def test_a_latent_that_never_fires_has_random_negatives_only(table: pd.DataFrame) -> None:
    own = table[table["latent"] == 1]
    assert set(own["kind"]) == {"random_negative"}
    assert len(own) == 10
    assert (own["latent_max"] == 0).all()
    assert (table[table["latent"] == 0].groupby("split")["latent_max"].max() >= 58).all()


@pytest.mark.parametrize("batch", [7, 4096])
def test_batches_without_a_chosen_latent_give_no_peaks(batch: int, tmp_path: Path) -> None:
    store, crosscoder, context = planted()
    crosscoder.save(tmp_path)
    for latents, peaks in (
        ([], []),
        ([1], [0]),
        ([0, 1], [FIRING // 2, 0]),
        ([1, 0], [0, FIRING // 2]),
    ):
        shown = Crosscoder.load(tmp_path, latents)
        found = find_peaks(store, shown, context, EXPLAIN, batch)  # type: ignore[arg-type]
        assert found["row"].is_unique
        assert [len(own.row) for own in peaks_of(found, len(latents))] == peaks


def test_tokens_are_written_as_text(table: pd.DataFrame) -> None:
    _, _, context = planted()
    window = table.iloc[0]
    expected = "".join(chr(65 + i) for i in context.ids[window["start"] : window["end"]])
    assert "".join(window["pieces"]) == expected
    assert len(window["role"]) == len(window["template"]) == WINDOW


def test_reading_past_memory_gives_the_same(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_contexts, "IN_MEMORY", 0)
    store, crosscoder, context = planted()
    chosen = pd.DataFrame({"latent": [0, 1], "unique_to": ["a", ""], "sample_weight": 1.0})
    parts = step.collect_split(store, crosscoder, context, chosen, SETTINGS, 0, EXPLAIN)  # type: ignore[arg-type]
    ((windows, values),) = parts
    assert values is not None
    before = table[table["split"] == EXPLAIN]
    assert windows["start"].tolist() == before["start"].tolist()
    assert values.tolist() == np.concatenate(before["activations"].tolist()).tolist()


def test_parts_of_a_latent_give_the_same_table(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "BLOCK", 1)
    pd.testing.assert_frame_equal(collected(tmp_path), table)
    written = pq.ParquetFile(tmp_path / "examples.parquet")
    assert written.num_row_groups == 4  # two latents in two splits
    groups = [written.read_row_group(i)["latent"].unique().to_pylist() for i in range(4)]
    assert groups == [[0], [1], [0], [1]]


def test_others_are_a_sample_that_stands_for_all() -> None:
    own = np.isin(np.arange(50), [3, 7])
    selection = pd.DataFrame(
        {"latent": range(50), "unique_to": np.where(own, "a", ""), "unique_a_vs_b": own}
    )
    chosen = step.choose_latents(selection, 12, 0)
    assert len(chosen) == 14
    assert chosen["latent"].is_monotonic_increasing
    assert {3, 7} <= set(chosen["latent"])
    assert chosen.set_index("latent")["sample_weight"][3] == 1.0
    assert chosen["sample_weight"].sum() == pytest.approx(50)


def test_a_split_without_tokens_is_named() -> None:
    store, crosscoder, context = planted()
    store.x = store.x[:0]
    with pytest.raises(cli.UserError, match="explain split holds no usable token"):
        find_peaks(store, crosscoder, context, EXPLAIN)  # type: ignore[arg-type]
