"""Every dumped layer against transformers' own hidden states, and what a dump refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tests.activations.synthetic import read_rows, token_shard, write_tokens
from tests.models.random_models import ARCHITECTURES, LAYERS, write_model
from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations import dump_activations as step
from workflow_scripts.activations.blocks import capture, decoder_blocks, forward_to
from workflow_scripts.activations.dump_activations import dump_activations, length_batches, pad
from workflow_scripts.activations.settings import DumpNumbers, DumpSpeed
from workflow_scripts.activations.store import read_norms
from workflow_scripts.common import hdf5
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.device import Compute
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.models.loading import load_model

CPU = torch.device("cpu")
BATCH = 48
EVERY = list(range(1, LAYERS + 1))
SHARD = token_shard([5, 20, 1, 13, 20, 2, 9], first_document=30)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the manifest of a tiny model of an architecture, made once."""
    made: dict[str, Path] = {}

    def get(architecture: str) -> Path:
        if architecture not in made:
            folder = tmp_path_factory.mktemp("models") / architecture
            made[architecture] = write_model(folder, architecture)
        return made[architecture]

    return get


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.h5", SHARD)


def dump(
    model: Path,
    tokens: Path,
    layers: list[int],
    output: Path,
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
    batch_tokens: int = 8192,
) -> None:
    """Run the step on the CPU."""
    numbers, speed = DumpNumbers(dtype=dtype), DumpSpeed(batch_tokens=batch_tokens)
    dump_activations(model, tokens, layers, numbers, speed, Compute(device="cpu"), output)


def everything(path: Path, layer: int) -> NDArray[np.float32]:
    return read_rows(path, layer)


@torch.no_grad()
def reference(model: PreTrainedModel, shard: TokenShard) -> dict[int, NDArray[np.float32]]:
    """Return hidden states by layer from whole forward passes; the last one from the block."""
    width = model.config.get_text_config().hidden_size
    found = {layer: np.zeros((shard.tokens, width), np.float32) for layer in EVERY}
    last: list[torch.Tensor] = []

    def keep(module: object, inputs: object, output: torch.Tensor | tuple[torch.Tensor]) -> None:
        last[:] = [output[0] if isinstance(output, tuple) else output]

    handle = decoder_blocks(model)[-1].register_forward_hook(keep)
    for rows in length_batches(np.diff(shard.row_starts), BATCH):
        ids, mask = pad(shard, rows)
        # Without a cache, as in the dump: GPT-2's cache changes the memory layout and the last bit.
        states = model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        for layer in EVERY:
            h = last[0] if layer == LAYERS else states[layer]
            for index, row in enumerate(rows):
                part = shard.row(int(row))
                found[layer][part] = h[index, : part.stop - part.start].numpy()
    handle.remove()
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_equal_hidden_states(
    architecture: str, model_of: Callable[[str], Path], tokens: Path, tmp_path: Path
) -> None:
    manifest, output = model_of(architecture), tmp_path / "x.h5"
    dump(manifest, tokens, EVERY, output, "float32", BATCH)
    model = load_model(manifest, torch.float32, CPU)
    for layer, h in reference(model, SHARD).items():
        np.testing.assert_array_equal(everything(output, layer), h)
        np.testing.assert_allclose(
            read_norms(output, layer), np.linalg.norm(h.astype(np.float64), axis=1), rtol=1e-6
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padded_batch_equals_single_rows(
    architecture: str, model_of: Callable[[str], Path], tokens: Path, tmp_path: Path
) -> None:
    for name, batch in (("padded", 10_000), ("single", 1)):
        dump(model_of(architecture), tokens, [LAYERS], tmp_path / name, "float32", batch)
    padded, single = (everything(tmp_path / name, LAYERS) for name in ("padded", "single"))
    np.testing.assert_allclose(padded, single, rtol=1e-4, atol=1e-4)


def test_stored_types(model_of: Callable[[str], Path], tokens: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        dump(model_of("llama"), tokens, [2], tmp_path / dtype, dtype)
    exact = everything(tmp_path / "float32", 2)
    for dtype in ("bfloat16", "float16"):
        rounded = torch.from_numpy(exact).to(getattr(torch, dtype)).float().numpy()
        np.testing.assert_array_equal(everything(tmp_path / dtype, 2), rounded)
        np.testing.assert_array_equal(
            read_norms(tmp_path / dtype, 2), read_norms(tmp_path / "float32", 2)
        )


def test_index_and_equal_bytes(
    model_of: Callable[[str], Path], tokens: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        dump(model_of("gemma2"), tokens, [1, 3], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with hdf5.open_complete(tmp_path / "a", FORMAT, VERSION) as file:
        np.testing.assert_array_equal(file["position"], SHARD.position)
        np.testing.assert_array_equal(file["document"], SHARD.row_document[SHARD.row_of_token])
        np.testing.assert_array_equal(file["split"], SHARD.row_split[SHARD.row_of_token])
        assert set(file) == {
            "crc32_layer1", "crc32_layer3", "document", "layer1", "layer3", "norm1", "norm3",
            "position", "split",
        }  # fmt: skip


def test_blocks_after_the_deepest_layer_do_not_run(model_of: Callable[[str], Path]) -> None:
    model = load_model(model_of("gemma2"), torch.float32, CPU)
    blocks = decoder_blocks(model)
    ran: list[int] = []
    for index, block in enumerate(blocks, start=1):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    with capture(blocks, [1, 2]) as captured:
        forward_to(model, *pad(SHARD, np.array([0, 1])))
    assert ran == [1, 2]
    assert captured.outputs.keys() == {1, 2}
    forward_to(model, *pad(SHARD, np.array([0])))
    assert ran == [1, 2, 1, 2, 3]  # the hooks are gone


def test_empty_shard(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens.h5", token_shard([]))
    dump(model_of("llama"), tmp_path / "tokens.h5", [1], tmp_path / "x.h5")
    assert everything(tmp_path / "x.h5", 1).shape == (0, 16)


@pytest.mark.parametrize("layer", [0, LAYERS + 1])
def test_layer_that_the_model_lacks(
    layer: int, model_of: Callable[[str], Path], tokens: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"model llama has layers 1 to 3, not {layer}"):
        dump(model_of("llama"), tokens, [layer], tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("value", "dtype"), [(float("nan"), "bfloat16"), (float("inf"), "float32"), (1e9, "float16")]
)
def test_values_that_cannot_be_stored(
    value: float,
    dtype: Literal["bfloat16", "float16", "float32"],
    model_of: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    model = load_model(model_of("llama"), torch.float32, CPU)
    word = int(SHARD.ids[SHARD.row(3)][1])
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[word] = value
    told = f"model broken at layer 1 has activations that are not finite or too large for {dtype}"
    with pytest.raises(UserError, match=told + r".* first in document 3\d"):
        step.write_dump(model, "broken", SHARD, [1], tmp_path / "x.h5", dtype, 8192, {})
    assert not list(tmp_path.glob("*x.h5*"))


def test_rows_longer_than_a_model_has_positions(
    model_of: Callable[[str], Path], tmp_path: Path
) -> None:
    tokens = write_tokens(tmp_path / "tokens.h5", token_shard([3, 65]))
    with pytest.raises(UserError, match="a row has 65 tokens, but model llama was made for 64"):
        dump(model_of("llama"), tokens, [1], tmp_path / "x.h5")


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = np.array([3, 50, 7, 7, 1, 12])
    batches = list(length_batches(lengths, 21))
    assert sorted(np.concatenate(batches).tolist()) == list(range(6))
    for rows in batches:
        assert len(rows) == 1 or lengths[rows].max() * len(rows) <= 21


def test_a_shard_beyond_the_memory_is_written_in_stretches(
    model_of: Callable[[str], Path], tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.h5", tmp_path / "parts.h5"
    manifest = model_of("gemma2")
    dump(manifest, tokens, EVERY, whole, "float32", 1)
    width = everything(whole, 1).shape[1]
    monkeypatch.setattr(step, "HELD_BYTES", 24 * 4 * len(EVERY) * width)
    dump(manifest, tokens, EVERY, parts, "float32", 1)
    for layer in EVERY:
        np.testing.assert_array_equal(everything(parts, layer), everything(whole, layer))
        np.testing.assert_array_equal(read_norms(parts, layer), read_norms(whole, layer))


def test_stretches_hold_every_row_in_order_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 200)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    found = list(step.stretches(starts, 50))
    np.testing.assert_array_equal(np.concatenate(found), np.arange(200))
    assert all(lengths[rows].sum() <= 50 for rows in found)
    assert [rows.tolist() for rows in step.stretches(np.array([0, 9, 11, 13]), 4)] == [[0], [1, 2]]
    assert not list(step.stretches(np.array([0]), 4))
