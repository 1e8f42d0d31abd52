"""Products with factors rounded to bfloat16."""

from __future__ import annotations

import pytest
import torch

from workflow_scripts.activations.settings import Precision
from workflow_scripts.common.precision import (
    hasten_products,
    multiplies_bfloat16,
    rounded_products,
    rounds_factors,
)

CPU = torch.device("cpu")


def product() -> tuple[torch.Tensor, torch.Tensor]:
    """Return a product as the context makes it, and the exact one."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn((256, 256), generator=generator) for _ in "ab")
    return a @ b, (a.double() @ b.double()).float()


def test_factors_are_rounded_inside_alone() -> None:
    before = torch.get_float32_matmul_precision()
    with rounded_products():
        rounded, exact = product()
    error = float((rounded - exact).norm() / exact.norm())
    assert error < 2.0**-7
    assert (error > 2.0**-12) == rounds_factors()
    assert torch.get_float32_matmul_precision() == before
    torch.testing.assert_close(*product(), rtol=1e-4, atol=1e-4)


def test_nothing_is_rounded_where_it_is_not_wanted() -> None:
    with rounded_products(wanted=False):
        torch.testing.assert_close(*product(), rtol=1e-4, atol=1e-4)


def test_an_error_ends_the_rounding() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ValueError, match="stop"), rounded_products():
        raise ValueError("stop")
    assert torch.get_float32_matmul_precision() == before


def test_fast_products_are_exact_and_not_for_gpus() -> None:
    before = torch.get_float32_matmul_precision()
    hasten_products(torch.device("cuda"))
    assert torch.get_float32_matmul_precision() == before
    try:
        hasten_products(CPU)
        torch.testing.assert_close(*product(), rtol=1e-4, atol=1e-4)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("has_units", [True, False])
def test_models_run_in_bfloat16_where_a_gpu_has_it(
    has_units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older GPUs only emulate it."""
    gpu, auto = torch.device("cuda"), Precision(compute_dtype="auto")
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: has_units or including_emulation,
    )
    assert multiplies_bfloat16(gpu) == has_units
    assert auto.on(gpu) == (torch.bfloat16 if has_units else torch.float32)
    assert auto.on(CPU) == torch.float32
    assert Precision(compute_dtype="bfloat16").on(CPU) == torch.bfloat16
    assert Precision().on(gpu) == torch.float32
