"""A pretended GPU, for machines without one: it refuses to mix devices and counts waits.

Tensors that are asked for on ``cuda`` compute on the CPU, but say that they are on the GPU. An
operation on tensors of both devices is refused, as is numpy on the GPU's. Where a real GPU would
let Python wait (to bring back a number, a tensor, or the size of a result), the wait is counted.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
PACKAGE = "workflow_scripts"
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
INDEXING |= {aten._index_put_impl_.default, aten._unsafe_index.Tensor}
WAITING = {
    aten._local_scalar_dense.default: 1,
    aten.is_nonzero.default: 1,
    aten.item.default: 1,
    aten.nonzero.default: 1,
    aten.masked_select.default: 1,
    aten.equal.default: 1,
    aten.bincount.default: 2,  # its smallest and its largest value
    aten._unique2.default: 1,
    aten.unique_consecutive.default: 1,
    aten.unique_dim.default: 1,
}
"""Operations on the GPU after which Python knows a value or a size."""


class OnGpu(Tensor):
    """A tensor that says it is on the GPU; ``held`` are its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        strided = inner.layout == torch.strided
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride() if strided else None,
            storage_offset=inner.storage_offset() if strided else None,
            dtype=inner.dtype,
            device=CPU,  # for C++, which would otherwise ask CUDA for its device
        )
        made.held = inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The GPU."""
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """Whether it is on a GPU."""
        return True

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.held!r})"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("a GPU's tensor is no array: call .cpu() first")
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        if func is Tensor.cpu:
            return args[0].to(CPU)
        with torch._C.DisableTorchFunctionSubclass():
            if func is not Tensor.to or not isinstance(args[0], cls):
                return func(*args, **kwargs)
            device, dtype, ahead, _ = _target(*args[1:], **kwargs)
            if device is None or device.type == "cuda":
                return args[0] if dtype in (None, args[0].dtype) else args[0].to(dtype)
            asked = {"device": CPU, "dtype": dtype or args[0].dtype, "non_blocking": ahead}
            return _running[-1].run(aten._to_copy.default, args[:1], asked)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert _running, "a tensor of the pretended GPU is used after its end"
        return _running[-1].run(func, args, dict(kwargs or {}))


class PretendedGpu(TorchDispatchMode):
    """What happened on the pretended GPU; ``waits`` counts waits by place and operation."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._pinned: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.run(func, args, dict(kwargs or {}))

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Do an operation on the tensors' values; raise RuntimeError where devices are mixed."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = any(isinstance(tensor, OnGpu) for tensor in tensors)
        if func is aten.is_pinned.default:
            return self._is_pinned(args[0])
        pinned = bool(kwargs.pop("pin_memory", False))
        asked = kwargs.get("device")
        if asked is None or "sparse_compressed" in func.__name__:  # which asks for what C++ sees
            to_gpu = here
        else:
            to_gpu = torch.device(asked).type == "cuda"
        if asked is not None:
            kwargs["device"] = CPU
        self._check(func, args, kwargs, tensors, here, to_gpu)
        owners = {id(t.held): t for t in tensors if isinstance(t, OnGpu)}
        plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if func is aten.copy_.default:
            return args[0]
        if func is aten._to_copy.default and not here and to_gpu:
            result = result.clone() if result is plain_args[0] else result
        if pinned:
            storage = result.untyped_storage()
            self._pinned.add(storage.data_ptr())
            weakref.finalize(result, self._pinned.discard, storage.data_ptr())

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor) or not to_gpu:
                return value
            return owners[id(value)] if id(value) in owners else OnGpu(value)

        return tree_map(wrapped, result)

    def _is_pinned(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, OnGpu) and tensor.untyped_storage().data_ptr() in self._pinned

    def _check(
        self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], here: bool, to_gpu: bool
    ) -> None:
        """Refuse mixed devices; count the waits of an operation."""
        if func in COPIES:
            source = args[1] if func is aten.copy_.default else args[0]
            target = isinstance(args[0], OnGpu) if func is aten.copy_.default else to_gpu
            if isinstance(source, OnGpu) == target:
                return
            ahead = kwargs.get("non_blocking", len(args) > 2 and args[2])
            if not (target and ahead and self._is_pinned(source)):
                self._wait(func, 1)
            return
        if not here:
            return
        alien = [t for t in tensors if not isinstance(t, OnGpu) and t.dim()]
        if func in INDEXING and isinstance(args[0], OnGpu):
            self._index(func, args, alien)
            return
        if alien:
            places = {str(tensor.device) for tensor in tensors}
            raise RuntimeError(f"{func}: all tensors should be on one device, not on {places}")
        self._wait(func, WAITING.get(func, 0))
        if func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
            self._wait(func, 1)

    def _index(self, func: Any, args: Any, alien: list[Tensor]) -> None:
        """Count copies of indices from the CPU, and waits for the size of a mask's selection."""
        indices = [index for index in args[1] if index is not None]
        if any(all(tensor is not index for index in indices) for tensor in alien):
            raise RuntimeError(f"{func}: all tensors should be on one device")
        one_value = len(args) > 2 and args[2].numel() == 1  # is a masked fill
        masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
        self._wait(func, len(alien) + (0 if one_value else len(masks)))

    def _wait(self, func: Any, times: int) -> None:
        if times:
            self.waits[f"{_place()} {func.__name__.partition('.')[0]}"] += times


class _Numbered(TorchFunctionMode):
    """Names the one GPU where ``cuda`` is asked for: to look for the current one needs CUDA."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        named = {name: _numbered(value) for name, value in (kwargs or {}).items()}
        if func in (torch.tensor, torch.as_tensor):  # which no mode for operations sees
            device = named.pop("device", None)
            made = func(*args, **named)
            return made if device is None else made.to(device)
        return func(*map(_numbered, args), **named)


def _numbered(value: Any) -> Any:
    return GPU if isinstance(value, (str, torch.device)) and str(value) == "cuda" else value


def _target(*args: Any, **kwargs: Any) -> tuple[torch.device | None, torch.dtype | None, bool, Any]:
    """Return what ``Tensor.to`` is asked for."""
    if args and isinstance(args[0], Tensor):
        return args[0].device, args[0].dtype, False, None
    kwargs.pop("copy", None)
    parsed: tuple[torch.device | None, torch.dtype | None, bool, Any]
    parsed = torch._C._nn._parse_to(*args, **kwargs)
    return parsed


def _inner(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _place() -> str:
    """Return file and line of the nearest caller in the package."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if f"/{PACKAGE}/" in name:
            return f"{name.rpartition(f'/{PACKAGE}/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


_grouped: Any = Optimizer._group_tensors_by_device_and_dtype


def _grouped_by_device(tensors: list[list[Any]], *more: Any) -> dict[Any, Any]:
    """Group an optimiser's tensors as it does, which asks C++ for their device."""
    groups = _grouped(tensors, *more)
    gpu = isinstance(tensors[0][0], OnGpu)
    return {(GPU if gpu else device, dtype): own for (device, dtype), own in groups.items()}


_running: list[PretendedGpu] = []


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Let ``cuda`` mean the pretended GPU while the context lasts."""
    stand_ins: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "get_device_name": lambda device=None: "pretended",
        "is_bf16_supported": lambda including_emulation=True: True,
    }
    gpu = PretendedGpu()
    by_device = mock.patch.object(
        Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_grouped_by_device)
    )
    # Modules would put these tensors into plain parameters, which cannot hold them.
    future = torch.__future__
    before = future.get_overwrite_module_params_on_conversion()
    with mock.patch.multiple(torch.cuda, **stand_ins), by_device, gpu, _Numbered():
        _running.append(gpu)
        future.set_overwrite_module_params_on_conversion(True)
        try:
            yield gpu
        finally:
            future.set_overwrite_module_params_on_conversion(before)
            _running.pop()
