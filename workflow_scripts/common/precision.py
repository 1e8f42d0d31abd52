"""Products whose factors are rounded to bfloat16, where the machine has units for them.

Sums stay in float32. GPUs multiply bfloat16 an order of magnitude faster than float32, and so do
processors with AMX; those with AVX512-BF16 alone, two to three times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device has units for products of bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch cannot say.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(units, False) for units in ("amx_bf16", "avx512_bf16"))


@contextmanager
def rounded_products(wanted: bool = True) -> Iterator[None]:
    """Let float32 products on the CPU round their factors to bfloat16, if ``wanted``."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if wanted else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
