"""Where a step computes: the device and the threads that it uses."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Literal

from workflow_scripts.common import cli
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.gpus import take_gpus
from workflow_scripts.common.settings import Count, Settings

if TYPE_CHECKING:
    import torch

UNUSED = (
    "there is an NVIDIA driver, but this torch sees no GPU: install a CUDA build of torch, or set "
    "activations.device to cpu"
)


class Device(Settings):
    """The device of every step that uses torch."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where models run; auto: a GPU where there is one"""


class Compute(Device):
    """Flags that affect speed, not results; changing them triggers no rerun."""

    threads: Count | None = None
    """threads of torch; none: as many as the process may use"""

    def start(self, gpus: int = 1) -> torch.device:
        """Set the number of threads, take so many GPUs where they are used, return the device.

        Raises
        ------
        UserError
            If the device is not there.
        """
        set_threads(self.threads)
        if self.device != "cpu":
            take_gpus(gpus)
        device = choose_device(self.device)
        from workflow_scripts.common.precision import hasten_products

        hasten_products(device)
        unused = self.device == "auto" and device.type == "cpu" and shutil.which("nvidia-smi")
        cli.log(f"device: {device}" + (f"; {UNUSED}" if unused else ""))
        return device


def set_threads(threads: int | None) -> None:
    """Let torch use ``threads`` threads; with ``None``, as many as the process may use."""
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)


def choose_device(name: str) -> torch.device:
    """Return the device ``auto`` (CUDA where there is one, else the CPU), ``cpu`` or ``cuda``.

    Raises
    ------
    UserError
        If the device is unknown or absent.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UserError(f"device {name} is not supported: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is asked for, but there is no CUDA GPU: choose auto or cpu")
    return torch.device(name)
