"""The store: aligned rows, normalised values, batches that are shuffled, whole and repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.activations.synthetic import read_rows, token_shard, write_dump, write_normalizer
from tests.emulator import pretended_gpu
from workflow_scripts.activations import layout
from workflow_scripts.activations.layout import Stored
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.shards import TokenShard

D = 3
LAYER = 2
MEAN = {"pt": np.array([1.0, -2.0, 0.5]), "it": np.array([0.0, 3.0, -1.0])}
SCALE = {"pt": 2.0, "it": 4.0}
BATCH = 64


def shards() -> list[TokenShard]:
    """Return 3 shards with 90 documents of 3 to 40 tokens, the middle one empty."""
    lengths = np.random.default_rng(5).integers(3, 40, 90).tolist()
    splits = ["fit", "fit", "score"] * 30
    return [
        token_shard(lengths[:50], 0, splits[:50]),
        token_shard([], 50),
        token_shard(lengths[50:], 50, splits[50:]),
    ]


def values(model: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what ``model`` holds at global tokens: the token's number, exactly, in each column."""
    h = np.outer(rows + 1.0, [1.0, 2.0, -1.0])
    return (h if model == "pt" else h + 0.5).astype(np.float32)


def write_store(
    folder: Path, memory: int = 1 << 20, bounds: dict[str, float] | None = None
) -> ActivationStore:
    """Write dumps of two models and return the store over them."""
    files: dict[str, list[Path]] = {model: [] for model in MEAN}
    first = 0
    for number, shard in enumerate(shards()):
        rows = np.arange(first, first + shard.tokens)
        first += shard.tokens
        for model in MEAN:
            path = folder / model / f"shard{number:03d}.h5"
            files[model].append(write_dump(path, shard, values(model, rows), LAYER))
    normalizers = {
        model: write_normalizer(
            folder / model / "normalizer.h5", MEAN[model], SCALE[model], (bounds or {})[model]
        )
        if bounds
        else write_normalizer(folder / model / "normalizer.h5", MEAN[model], SCALE[model])
        for model in MEAN
    }
    return ActivationStore(files, LAYER, normalizers, memory)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return write_store(tmp_path)


def expected(rows: NDArray[np.int64]) -> NDArray[np.float32]:
    stacked = [(values(m, rows) - MEAN[m].astype(np.float32)) / np.float32(SCALE[m]) for m in MEAN]
    return np.stack(stacked, axis=1)


def numbers(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the global tokens that a batch [B, M, D] holds."""
    found = np.rint(x[:, 0, 0].astype(np.float64) * SCALE["pt"] + MEAN["pt"][0]) - 1
    return np.asarray(found, dtype=np.int64)


def index() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return position, split and document of every token."""
    made = shards()
    position = np.concatenate([s.position for s in made]).astype(np.int64)
    split = np.concatenate([s.row_split[s.row_of_token] for s in made]).astype(np.int64)
    document = np.concatenate([s.row_document[s.row_of_token] for s in made]).astype(np.int64)
    return position, split, document


def test_rows_leave_out_position_0_and_other_splits(store: ActivationStore) -> None:
    position, split, _ = index()
    np.testing.assert_array_equal(store.rows("fit"), np.flatnonzero((split == 0) & (position > 0)))
    np.testing.assert_array_equal(
        store.rows("score"), np.flatnonzero((split == 2) & (position > 0))
    )
    assert len(store.rows("verify")) == 0


def test_rows_leave_out_the_union_of_outliers(tmp_path: Path) -> None:
    position, split, _ = index()
    every = np.arange(len(position))
    norms = {m: np.linalg.norm(values(m, every).astype(np.float64), axis=1) for m in MEAN}
    bounds = {"pt": float(np.quantile(norms["pt"], 0.9)), "it": float(norms["it"][700])}
    store = write_store(tmp_path, bounds=bounds)
    outliers = {m: norms[m] > bounds[m] for m in MEAN}
    kept = ~(outliers["pt"] | outliers["it"]) & (position > 0) & (split == 0)
    np.testing.assert_array_equal(store.rows("fit"), np.flatnonzero(kept))
    fit = split == 0
    assert store.dropped("fit") == pytest.approx(
        {
            "position": (position == 0)[fit].mean(),
            "norm_pt": outliers["pt"][fit].mean(),
            "norm_it": outliers["it"][fit].mean(),
        }
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_read_equals_fancy_indexing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "read"
    store = write_store(folder) if not folder.exists() else reopened(folder)
    total = sum(shard.tokens for shard in shards())
    chosen = data.draw(st.sets(st.integers(0, total - 1), max_size=60))
    rows = np.array(sorted(chosen), dtype=np.int64)
    np.testing.assert_array_equal(store.read(rows), expected(rows))


def reopened(folder: Path) -> ActivationStore:
    files = {model: sorted((folder / model).glob("shard*.h5")) for model in MEAN}
    normalizers = {model: folder / model / "normalizer.h5" for model in MEAN}
    return ActivationStore(files, LAYER, normalizers)


def test_contiguous_covers_a_split_in_order(store: ActivationStore) -> None:
    parts = list(store.contiguous("score", 50))
    rows = np.concatenate([rows for rows, _ in parts])
    np.testing.assert_array_equal(rows, store.rows("score"))
    assert {len(rows) for rows, _ in parts[:-1]} == {50}
    for rows, x in parts:
        np.testing.assert_array_equal(x, expected(rows))


# 1 MiB holds the whole split; 12 KiB hold 512 tokens.
def shuffled(store: ActivationStore, *which: Any, **more: Any) -> Iterator[NDArray[np.float32]]:
    """Yield a store's batches as arrays."""
    return (x.numpy() for x in store.shuffled(*which, **more))


@pytest.mark.parametrize("memory", [1 << 20, 512 * 4 * 2 * D])
def test_each_row_once_per_epoch(memory: int, tmp_path: Path) -> None:
    store = write_store(tmp_path, memory)
    rows = store.rows("fit")
    per_epoch = len(rows) // BATCH
    assert len(rows) > 512
    assert len(rows) % BATCH
    batches = list(islice(shuffled(store, "fit", BATCH, seed=1), 3 * per_epoch))
    epochs = [batches[i : i + per_epoch] for i in range(0, len(batches), per_epoch)]
    orders = []
    for epoch in epochs:
        seen = np.concatenate([numbers(x) for x in epoch])
        assert len(set(seen.tolist())) == len(seen) == per_epoch * BATCH
        assert set(seen.tolist()) <= set(rows.tolist())
        orders.append(seen.tolist())
    assert orders[0] != orders[1] != orders[2]
    x = batches[0]
    assert x.shape == (BATCH, 2, D)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, expected_in_order(numbers(x)))


def expected_in_order(rows: NDArray[np.int64]) -> NDArray[np.float32]:
    order = np.argsort(rows)
    result = np.empty((len(rows), 2, D), dtype=np.float32)
    result[order] = expected(rows[order])
    return result


@pytest.mark.parametrize("memory", [1 << 20, 512 * 4 * 2 * D])
def test_resumed_and_repeated_batches_are_the_same(memory: int, tmp_path: Path) -> None:
    store = write_store(tmp_path, memory)
    per_epoch = len(store.rows("fit")) // BATCH
    whole = list(islice(shuffled(store, "fit", BATCH, seed=7), 2 * per_epoch + 2))
    for start in (0, 1, per_epoch - 1, per_epoch, per_epoch + 3, 2 * per_epoch + 1):
        again = shuffled(reopened_with(store, memory), "fit", BATCH, seed=7, start_batch=start)
        for x, y in zip(whole[start:], again, strict=False):
            np.testing.assert_array_equal(x, y)
    other = next(iter(shuffled(store, "fit", BATCH, seed=8)))
    assert not np.array_equal(whole[0], other)


@pytest.mark.parametrize("memory", [1 << 20, 512 * 4 * 2 * D])
def test_a_gpu_gets_the_same_batches_as_they_are_stored(memory: int, tmp_path: Path) -> None:
    """It gets half the bytes, from pinned memory, and does not wait for them."""
    store = write_store(tmp_path, memory)
    count = len(store.rows("fit")) // BATCH + 2
    on_cpu = list(islice(store.shuffled("fit", BATCH, 7), count))
    with pretended_gpu() as gpu:
        batches = store.shuffled("fit", BATCH, 7, device=torch.device("cuda"))
        on_gpu = [next(batches)]
        gpu.waits.clear()
        on_gpu += islice(batches, count - 1)
        assert all(x.device.type == "cuda" for x in on_gpu)
        assert not gpu.waits
        for x, y in zip(on_cpu, on_gpu, strict=True):
            assert torch.equal(x, y.cpu())


@pytest.mark.parametrize("memory", [1 << 20, 512 * 4 * 2 * D])
def test_each_process_reads_its_part_of_every_batch(memory: int, tmp_path: Path) -> None:
    store = write_store(tmp_path, memory)
    parts = [slice(place, place + BATCH // 4) for place in range(0, BATCH, BATCH // 4)]
    shared = [store.shuffled("fit", BATCH, 7, 3, part=part) for part in parts]
    for whole, *own in islice(zip(store.shuffled("fit", BATCH, 7, 3), *shared, strict=False), 9):
        assert torch.equal(whole, torch.cat(own))


def reopened_with(store: ActivationStore, memory: int) -> ActivationStore:
    folder = store.files["pt"][0].parents[1]
    normalizers = {model: folder / model / "normalizer.h5" for model in store.models}
    return ActivationStore(store.files, LAYER, normalizers, memory)


@pytest.mark.parametrize("memory", [1 << 20, 512 * 4 * 2 * D])
def test_batches_span_many_documents_in_no_order(memory: int, tmp_path: Path) -> None:
    store = write_store(tmp_path, memory)
    _, _, document = index()
    for x in islice(shuffled(store, "fit", BATCH, seed=0), 10):
        rows = numbers(x)
        assert len(set(document[rows].tolist())) >= BATCH // 4
        rising = float((np.diff(rows) > 0).mean())
        assert 0.2 < rising < 0.8


# Documents, tokens of each, batch, tokens of a pool: long and short documents, few and many.
SHAPES = [
    (40, 1000, 256, 10_000),
    (12, 3000, 64, 4_000),
    (6, 5000, 512, 9_000),
    (500, 30, 128, 2_000),
    (3000, 6, 512, 1_500),
    (97, 211, 100, 1_000),
]


@pytest.mark.parametrize("chunk_bytes", [128, 1 << 12, 1 << 18])
@pytest.mark.parametrize(("documents", "length", "batch", "pool"), SHAPES)
def test_batches_of_a_large_store_span_documents(
    documents: int,
    length: int,
    batch: int,
    pool: int,
    chunk_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each row once per epoch, and min(B/4, all) documents in each batch, without luck."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", chunk_bytes)
    half = [length] * (documents // 2)
    made = [token_shard(half, 0), token_shard([length] * (documents - len(half)), len(half))]
    first, paths = 0, []
    for number, shard in enumerate(made):
        rows = np.arange(first, first + shard.tokens)
        first += shard.tokens
        h = np.stack([rows, rows + 1], axis=1).astype(np.float32)
        paths.append(write_dump(tmp_path / f"{number}.h5", shard, h, LAYER))
    normal = write_normalizer(tmp_path / "n.h5", np.zeros(2))
    files = dict.fromkeys(MEAN, paths)
    store = ActivationStore(files, LAYER, dict.fromkeys(MEAN, normal), pool * 4 * 2 * 2)
    total = store.count("fit")
    assert total > pool == store.buffer
    document = store.document
    for epoch in (0, 1):
        start = epoch * (total // batch)
        batches = islice(shuffled(store, "fit", batch, 3, start), total // batch)
        seen = []
        for x in batches:
            rows = np.rint(x[:, 0, 0]).astype(np.int64)
            assert len(np.unique(document[rows])) >= min(batch // 4, documents)
            seen.append(rows)
        every = np.concatenate(seen)
        assert len(np.unique(every)) == len(every) == total // batch * batch
        assert set(every.tolist()) <= set(store.rows("fit").tolist())


def test_memory_bounds_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path, 512 * 4 * 2 * D)
    sizes: list[int] = []
    held = store.held

    def counted(rows: NDArray[np.int64], room: Stored | None = None) -> Stored:
        sizes.append(len(rows))
        return held(rows, room)

    monkeypatch.setattr(store, "held", counted)
    batches = islice(shuffled(store, "fit", BATCH, seed=0), 2 * (len(store.rows("fit")) // BATCH))
    assert len(list(batches)) > 10
    assert 0 < max(sizes) <= 512 + BATCH


def test_buffer_smaller_than_a_batch(tmp_path: Path) -> None:
    store = write_store(tmp_path, 1)
    batch = 356
    seen = np.concatenate(
        [
            numbers(x)
            for x in islice(shuffled(store, "fit", batch, 0), len(store.rows("fit")) // batch)
        ]
    )
    assert len(set(seen.tolist())) == len(seen)


def test_too_few_rows_for_a_batch(store: ActivationStore) -> None:
    with pytest.raises(UserError, match="the verify split has 0 usable tokens"):
        next(iter(shuffled(store, "verify", 8, 0)))
    with pytest.raises(UserError, match="there is no split test"):
        store.rows("test")


def test_models_that_do_not_belong_together(tmp_path: Path) -> None:
    store = write_store(tmp_path)
    pt, it = store.files["pt"], store.files["it"]
    normal = {model: tmp_path / model / "normalizer.h5" for model in MEAN}
    with pytest.raises(UserError, match="differ in their number of shards"):
        ActivationStore({"pt": pt, "it": it[:2]}, LAYER, normal)
    narrow = write_normalizer(tmp_path / "narrow.h5", np.zeros(2))
    with pytest.raises(UserError, match="different widths"):
        ActivationStore(store.files, LAYER, {"pt": normal["pt"], "it": narrow})
    shifted = write_dump(
        tmp_path / "other.h5", token_shard([4], 99), np.ones((4, D), np.float32), LAYER
    )
    with pytest.raises(UserError, match=r"other\.h5 was dumped from other tokens"):
        ActivationStore({"pt": pt[:1], "it": [shifted]}, LAYER, normal).rows("fit")
    with pytest.raises(UserError, match=r"shard000\.h5 holds no layer 5"):
        ActivationStore(store.files, 5, normal).rows("fit")
    with pytest.raises(UserError, match=r"shard000\.h5 holds no layer 5"):
        read_rows(pt[0], 5)
