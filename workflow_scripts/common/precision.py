"""Products whose factors are rounded to bfloat16, where the machine has units for them.

Sums stay in float32. GPUs multiply bfloat16 an order of magnitude faster than float32, and so do
processors with AMX; those with AVX512-BF16 some four times. AMX can round float32 inside a
product. Elsewhere the same setting of torch takes such products with oneDNN, as exact as MKL's and
on AMD's processors in less than half the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device has units for products of bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _has("amx_bf16") or _has("avx512_bf16")


def rounds_factors() -> bool:
    """Return whether the CPU can round the factors of float32 products inside the product."""
    return _has("amx_bf16")


def _has(units: str) -> bool:
    # Older versions of torch cannot say.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(units, False))


def hasten_products(device: torch.device) -> None:
    """Take this process's float32 products in the fastest way that is exact, if on the CPU."""
    if device.type == "cpu" and not rounds_factors():
        torch.set_float32_matmul_precision("medium")


@contextmanager
def rounded_products(wanted: bool = True) -> Iterator[None]:
    """Let float32 products on the CPU round their factors to bfloat16, if ``wanted``.

    Without units for it they are exact.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if wanted else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
