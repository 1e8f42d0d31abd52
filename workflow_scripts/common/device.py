"""Where a step computes: the device and the threads that it uses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.settings import Count, Settings

if TYPE_CHECKING:
    import torch


class Device(Settings):
    """The device of every step that uses torch."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where models run; auto: a GPU where there is one"""


class Compute(Device):
    """Flags that affect speed, not results; changing them triggers no rerun."""

    threads: Count | None = None
    """threads of torch; none: as many as the process may use"""

    def start(self) -> torch.device:
        """Set the number of threads and return the device.

        Raises
        ------
        UserError
            If the device is not there.
        """
        set_threads(self.threads)
        return choose_device(self.device)


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
