"""Settings of computing and storing activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from workflow_scripts.common.device import Device
from workflow_scripts.common.settings import Count, Positive, Settings

if TYPE_CHECKING:
    import torch


class Precision(Settings):
    """The arithmetic of the models, on which results depend."""

    compute_dtype: Literal["auto", "bfloat16", "float32"] = "float32"
    """type in which the models run; auto: bfloat16 on GPUs that have it, else float32, so all jobs
    of a run need the same kind of device"""

    def on(self, device: torch.device) -> torch.dtype:
        """Return the type on a device."""
        import torch

        from workflow_scripts.common.precision import multiplies_bfloat16

        if self.compute_dtype == "auto":
            fast = device.type == "cuda" and multiplies_bfloat16(device)
            return torch.bfloat16 if fast else torch.float32
        return torch.bfloat16 if self.compute_dtype == "bfloat16" else torch.float32


class Batches(Settings):
    """How much a model reads at a time; changing it triggers no rerun."""

    batch_tokens: Count = 8192
    """tokens per forward pass, padding included"""


class DumpNumbers(Precision):
    """The numbers that a dump holds."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """type in which they are stored"""


class DumpSpeed(Batches):
    """What affects the speed of a dump, not its content."""

    gpus: Count = 1
    """GPUs over which each job spreads a model too large for one"""


class NormBound(Settings):
    """What counts as an outlier."""

    norm_bound: Positive = 10.0
    """rows whose norm exceeds this many median norms are left out"""


class Activations(NormBound, DumpSpeed, DumpNumbers, Device):
    """How activations are computed and stored."""

    flop_per_second: Positive | None = None
    """assumed speed for estimates of time; none: 6e13, on the CPU 3e10"""
