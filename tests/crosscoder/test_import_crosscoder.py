"""Published crosscoders: read as they were written, and the same in the run's normalised space."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tests.crosscoder.memory_store import MemoryStore, store_of
from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.device import Compute
from workflow_scripts.crosscoder import evaluate_crosscoder as evaluation
from workflow_scripts.crosscoder.import_crosscoder import (
    import_crosscoder,
    imported,
    main,
    read_published,
    recorded_fve,
)
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.crosscoder.settings import Imported

M, D, F, TOKENS = 2, 6, 40, 500


class RawStore(MemoryStore):
    """Raw activations with a mean and a scale of the run's own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.mean = torch.randn(M, D, generator=generator).double()
        self.scales = torch.tensor([2.0, 0.5]).double()
        self.h = 3 * torch.randn(TOKENS, M, D, generator=generator).double() + 1
        self.x = ((self.h - self.mean) / self.scales[:, None]).float().numpy()
        self.models, self.width = ("a", "b"), D
        self.document = np.zeros(TOKENS, dtype=np.int32)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.x[rows]

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.mean.numpy(), self.scales.numpy()


def tensors(kind: int, threshold: float | None, normalised: bool) -> dict[str, Tensor]:
    """Return random weights in the published layout."""
    generator = torch.Generator().manual_seed(kind)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    found = {
        "encoder.weight": 0.3 * random(M, D, F),
        "encoder.bias": 0.2 * random(F),
        "decoder.weight": 0.4 * random(M, F, D),
        "decoder.bias": random(M, D),
        "code_normalization_id": torch.tensor(kind),
    }
    found["decoder.weight"][:, 7] = 0  # a latent that died
    if threshold is not None:
        found |= {"threshold": torch.tensor(threshold), "k": torch.tensor(9, dtype=torch.int32)}
    if normalised:
        mean, scale = random(M, D), torch.tensor([0.7, 1.9])
    else:
        mean, scale = torch.full((M, D), torch.nan), torch.ones(M)
    return found | {
        "activation_mean": mean,
        "activation_std": torch.ones(M, D),
        "activation_global_scale": scale,
        "target_rms": torch.tensor(1.0),
    }


def write(folder: Path, found: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(found, folder / "model.safetensors")
    config = {"activation_dim": D, "dict_size": F, "num_layers": M, "k": 9}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def expected(t: dict[str, Tensor], h: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes [N, F] and raw reconstructions [N, M, D], by the layout's own definitions."""
    t = {name: tensor.double() for name, tensor in t.items()}
    mean, scale = torch.zeros(M, D).double(), torch.ones(M, 1).double()
    if not t["activation_mean"].isnan().any():
        mean, scale = t["activation_mean"], t["activation_global_scale"][:, None]
    x = (h - mean) * scale
    f = torch.relu(torch.einsum("nmd,mdf->nf", x, t["encoder.weight"]) + t["encoder.bias"])
    total = t["decoder.weight"].norm(dim=2).sum(0)
    joint = t["decoder.weight"].norm(dim=(0, 2))
    weight = {1: total, 2: joint, 3: joint + 0.1 * total, 4: torch.ones(F)}
    if "threshold" in t:
        f = f * (f * weight[int(t["code_normalization_id"])] > t["threshold"])
    decoded = torch.einsum("nf,mfd->nmd", f, t["decoder.weight"]) + t["decoder.bias"]
    return f, decoded / scale + mean


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(
    ("kind", "threshold"), [(1, 2.0), (2, 1.5), (3, 1.5), (4, 1.1), (1, None), (2, None)]
)
def test_codes_and_reconstructions_are_those_of_the_published_one(
    tmp_path: Path, kind: int, threshold: float | None, normalised: bool
) -> None:
    store, found = RawStore(), tensors(kind, threshold, normalised)
    imported(read_published(write(tmp_path / "theirs", found)), store_of(store)).save(tmp_path)
    crosscoder = Crosscoder.load(tmp_path)
    f, raw = expected(found, store.h)
    codes = crosscoder.encode(torch.from_numpy(store.x))
    codes[:, 7] = f[:, 7] = 0  # it writes nothing: whether it fires does not matter
    near = (codes - f).abs() < 1e-4
    assert near.double().mean() > 0.9999  # a score at the threshold may round to either side
    rows = near.all(1)
    decoded = crosscoder.decode(codes).double() * store.scales[:, None] + store.mean
    torch.testing.assert_close(decoded[rows], raw[rows], rtol=1e-4, atol=1e-3)
    active = float((codes > 0).sum(1).double().mean())
    assert 0.5 < active < F - 1
    assert crosscoder.k == (9 if threshold is not None else round(active))
    assert crosscoder.variant == ("l1" if threshold is None else "batch_topk")


def test_some_latents_are_read_alone(tmp_path: Path) -> None:
    store = RawStore()
    published = read_published(write(tmp_path / "theirs", tensors(3, 1.5, True)))
    imported(published, store_of(store)).save(tmp_path)
    whole, some = Crosscoder.load(tmp_path), Crosscoder.load(tmp_path, [31, 4, 30])
    x = torch.from_numpy(store.x)
    torch.testing.assert_close(some.encode(x), whole.encode(x)[:, [31, 4, 30]])
    assert some.encode(x).count_nonzero() > 0
    assert torch.equal(some.w_dec, whole.w_dec[[31, 4, 30]])
    assert Crosscoder.load(tmp_path, []).encode(x).shape == (TOKENS, 0)


def test_older_folders_without_statistics(tmp_path: Path) -> None:
    found = {k: v for k, v in tensors(1, 2.0, False).items() if "activation" not in k}
    del found["code_normalization_id"]
    published = read_published(write(tmp_path / "theirs", found))
    assert imported(published, store_of(RawStore())).latents == F


def test_what_cannot_be_imported_is_told(tmp_path: Path) -> None:
    store = store_of(RawStore())

    def told(found: dict[str, Tensor]) -> str:
        with pytest.raises(UserError) as error:
            imported(read_published(write(tmp_path / "theirs", found)), store)
        return str(error.value)

    good = tensors(1, 2.0, False)
    assert "scores each model apart" in told(good | {"code_normalization_id": torch.tensor(5)})
    assert "no tensor decoder.bias" in told({k: v for k, v in good.items() if k != "decoder.bias"})
    assert "different widths" in told(good | {"decoder.bias": torch.zeros(M, D + 1)})
    three = {
        "encoder.weight": torch.zeros(3, D, F),
        "decoder.weight": torch.zeros(3, F, D),
        "decoder.bias": torch.zeros(3, D),
    }
    assert "has 3 models" in told(good | three)
    (tmp_path / "theirs/model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="is damaged"):
        read_published(tmp_path / "theirs")
    (tmp_path / "theirs/model.safetensors").rename(tmp_path / "theirs/ae.pt")
    with pytest.raises(UserError, match="only pickled weights"):
        read_published(tmp_path / "theirs")


def test_a_branch_of_the_hub_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--activations={}", "--normalizers={}", "--layer=1", "--hub=org/name"]
    assert main([*flags, "--revision=main", f"--output-dir={tmp_path}"]) == 2
    assert "40 hex digits" in capsys.readouterr().err


@pytest.mark.parametrize("given", [0.9, None])
def test_far_less_explained_than_published_names_the_layer(
    given: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = store_of(RawStore())
    monkeypatch.setattr(StoreInputs, "open", lambda self: store)
    monkeypatch.setattr(evaluation, "read_sources", lambda paths: dict.fromkeys(range(TOKENS), "x"))
    inputs, cpu = StoreInputs(activations={}, normalizers={}, layer=1), Compute(device="cpu")
    source = Imported(path=str(write(tmp_path / "theirs", tensors(1, 2.0, False))), fve=given)
    import_crosscoder(inputs, source, tmp_path)
    evaluation.evaluate_crosscoder(inputs, tmp_path, [], cpu, tmp_path / "evaluation.json")
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert result["fve_published"] == given
    assert bool(result["warning"]) == (given is not None)
    log = capsys.readouterr().err
    assert ("of the variance at layer 1, where 90.0% is published" in log) == (given is not None)


def test_a_doubt_needs_five_points() -> None:
    near, far = {"a": 0.84, "b": 0.87}, {"a": 0.84, "b": 0.85}
    assert evaluation.doubt({"fve": near, "fve_published": 0.9}, 3) == ""
    assert evaluation.doubt({"fve": far, "fve_published": 0.9}, 3)


def test_a_published_config_may_tell_its_fve(tmp_path: Path) -> None:
    assert recorded_fve(tmp_path) is None
    for value, fve in ((0.8, 0.8), ({"a": 0.75, "b": 0.85}, 0.8), ("high", None), ([], None)):
        (tmp_path / "config.json").write_text(json.dumps({"frac_variance_explained": value}))
        assert recorded_fve(tmp_path) == fve
