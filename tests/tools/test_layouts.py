"""Other layouts hold the same crosscoder: the same latents fire, and the way back is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.crosscoder.memory_store import store_of
from tests.crosscoder.test_import_crosscoder import D, F, M, RawStore, expected
from workflow_scripts.crosscoder.import_crosscoder import imported, read_published
from workflow_scripts.crosscoder.model import Crosscoder, Weights
from workflow_scripts.tools import layouts

LOADED = {
    "encoder.weight": (M, D, F),
    "encoder.bias": (F,),
    "decoder.weight": (M, F, D),
    "decoder.bias": (M, D),
    "code_normalization_id": (),
    "target_rms": (),
    "activation_mean": (M, D),
    "activation_std": (M, D),
    "activation_global_scale": (M,),
    "k": (),
    "threshold": (),
}
"""The state of ``BatchTopKCrossCoder``, all of which its loader asks for."""


def fitted(store: RawStore, costs: bool = False) -> Crosscoder:
    """Return a random crosscoder for the activations of a store."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    decoder = 0.4 * random(F, M * D)
    decoder[7] = 0  # a latent that died
    weights = Weights(0.3 * random(F, M * D), 0.2 * random(F), decoder, random(M * D), M)
    return Crosscoder(
        models=list(store.models),
        weights=weights,
        threshold=1.3,
        mean=store.mean.float(),
        scale=store.scales.float(),
        k=9,
        settings={"training": {"variant": "batch_topk"}},
        costs=0.5 + torch.rand(F, generator=generator) if costs else None,
    )


def codes_of(crosscoder: Crosscoder, h: Tensor) -> Tensor:
    return crosscoder.encode(crosscoder.normalize(h.float()))


def same(codes: Tensor, others: Tensor) -> bool:
    """Return whether activations agree, but for scores that round across the threshold."""
    return bool(((codes - others).abs() < 1e-4).double().mean() > 0.9999)


def test_the_way_back_from_dictionary_learning_is_exact(tmp_path: Path) -> None:
    store = RawStore()
    crosscoder = fitted(store)
    tensors, config = layouts.dictionary_learning(crosscoder, (store.mean, store.scales))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == LOADED
    assert config == {
        "activation_dim": D,
        "dict_size": F,
        "num_layers": M,
        "code_normalization": "CROSSCODER",
        "k": 9,
    }
    save_file(tensors, tmp_path / "model.safetensors")
    back = imported(read_published(tmp_path), store_of(store))
    for name, tensor in crosscoder.weights.tensors().items():
        assert torch.equal(back.weights.tensors()[name], tensor), name
    assert (back.threshold, back.k) == (crosscoder.threshold, crosscoder.k)
    assert torch.equal(back.score_scales(), crosscoder.score_scales())


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_the_layouts_own_definitions_give_the_same_latents(
    tmp_path: Path, costs: bool, folded: bool
) -> None:
    store = RawStore()
    crosscoder = fitted(store, costs)
    source = layouts.folded(crosscoder) if folded else crosscoder
    statistics = None if folded else (store.mean, store.scales)
    tensors, config = layouts.dictionary_learning(source, statistics)
    save_file(tensors, tmp_path / "model.safetensors")
    f, raw = expected(load_file(tmp_path / "model.safetensors"), store.h)
    codes = codes_of(crosscoder, store.h)
    scaled = config["code_normalization"] == "NONE"
    assert scaled == (costs or folded)
    assert (codes > 0).any(0).sum() > F / 2
    assert same(codes * crosscoder.score_scales() if scaled else codes, f.float())
    decoded = crosscoder.decode(codes).double() * store.scales[:, None] + store.mean
    rows = ((codes > 0) == (f > 0)).all(1)
    torch.testing.assert_close(raw[rows], decoded[rows], rtol=1e-4, atol=1e-3)


def test_a_crosscoder_of_l1_has_no_threshold() -> None:
    store = RawStore()
    crosscoder = fitted(store)
    crosscoder.threshold, crosscoder.settings = 0.0, {"training": {"variant": "l1"}}
    tensors, config = layouts.dictionary_learning(crosscoder, (store.mean, store.scales))
    assert set(LOADED) - set(tensors) == {"k", "threshold"}
    assert "k" not in config
    codes, f = codes_of(crosscoder, store.h), expected(tensors, store.h)[0].float()
    codes[:, 7] = f[:, 7] = 0  # it writes nothing: whether it fires does not matter
    assert same(codes, f)


def test_folded_weights_read_raw_activations() -> None:
    store = RawStore()
    crosscoder = fitted(store, costs=True)
    folded = layouts.folded(crosscoder)
    codes = codes_of(crosscoder, store.h)
    assert same(codes, folded.encode(store.h.float()))
    decoded = crosscoder.decode(codes).double() * store.scales[:, None] + store.mean
    torch.testing.assert_close(folded.decode(codes).double(), decoded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", range(M))
def test_a_view_of_one_model_is_the_crosscoder_where_others_are_at_their_mean(model: int) -> None:
    """By JumpReLU as SAELens defines it: pre-activations above their thresholds."""
    store = RawStore()
    crosscoder = fitted(store, costs=True)
    sae = layouts.sae_of_model(crosscoder, model)
    shapes = {name: tuple(tensor.shape) for name, tensor in sae.items()}
    assert shapes == {
        "W_enc": (D, F),
        "b_enc": (F,),
        "W_dec": (F, D),
        "b_dec": (D,),
        "threshold": (F,),
    }
    assert all(tensor.dtype == torch.float32 for tensor in sae.values())
    h = store.h[:, model].float()
    pre = h @ sae["W_enc"] + sae["b_enc"]
    f = torch.relu(pre) * (pre > sae["threshold"])
    x = torch.zeros(len(h), M, D)
    x[:, model] = (h - crosscoder.mean[model]) / crosscoder.scale[model]
    codes = crosscoder.encode(x)
    assert (codes > 0).any()
    assert same(f, codes)
    decoded = crosscoder.decode(codes)[:, model] * crosscoder.scale[model] + crosscoder.mean[model]
    torch.testing.assert_close(codes @ sae["W_dec"] + sae["b_dec"], decoded, rtol=1e-4, atol=1e-4)
