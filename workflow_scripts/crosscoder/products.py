"""Products with the sparse [B, F] matrix of active entries: by the entries, or dense.

Both give the same numbers up to rounding. Entry by entry the work is K·C for K active entries and C
columns; dense it is B·F·C, at a far higher rate. On a CPU the two were measured to cost the same
at a share of 0.08 (C = 1,024) to 0.2 (C = 256); :data:`DENSE_FROM` lies between
(``tests/benchmarks/bench_crosscoder.py`` checks it).
"""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workflow_scripts.crosscoder.sparsity import Active

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")

DENSE_FROM = {"cpu": 0.1, "cuda": 0.03}
"""Share of active entries from which dense products are taken.

Of GPUs by arithmetic, not yet measured: an entry costs 4·C bytes of memory, a place of the dense
matrix 2·C operations, and an H200 reads 4.8e12 bytes and makes 6.7e13 float32 operations a second.
"""


class Products(Protocol):
    """Products of a matrix S [B, F] that is zero outside the active entries (i, j)."""

    def matmul(
        self, values: Float[Tensor, " K"], right: Float[Tensor, "F C"], bias: Float[Tensor, " C"]
    ) -> Float[Tensor, "B C"]:
        """Return S @ right + bias, for S of ``values``."""

    def transposed(
        self, values: Float[Tensor, " K"], right: Float[Tensor, "B C"]
    ) -> Float[Tensor, "F C"]:
        """Return Sᵀ @ right, for S of ``values``."""

    def sampled(
        self, left: Float[Tensor, "B C"], right: Float[Tensor, "F C"]
    ) -> Float[Tensor, " K"]:
        """Return ⟨left_i, right_j⟩ of the active entries."""


def products(active: Active, shape: tuple[int, int]) -> Products:
    """Return the products that are faster for so many active entries of a [B, F] matrix."""
    if active.rows.numel() >= DENSE_FROM[active.rows.device.type] * shape[0] * shape[1]:
        return DenseProducts(active, shape)
    return SparseProducts(active, shape)


class SparseProducts:
    """Products entry by entry, through compressed rows."""

    def __init__(self, active: Active, shape: tuple[int, int]) -> None:
        self.active = active
        self.shape = shape
        self.pointers = _pointers(active.rows, shape[0])
        self._by_column: tuple[Tensor, Tensor, Tensor] | None = None

    def matmul(
        self, values: Float[Tensor, " K"], right: Float[Tensor, "F C"], bias: Float[Tensor, " C"]
    ) -> Float[Tensor, "B C"]:
        """Return S @ right + bias."""
        sparse = _csr(self.pointers, self.active.columns, values, self.shape)
        return torch.addmm(bias.expand(self.shape[0], -1), sparse, right)

    def transposed(
        self, values: Float[Tensor, " K"], right: Float[Tensor, "B C"]
    ) -> Float[Tensor, "F C"]:
        """Return Sᵀ @ right. The entries are sorted by column once."""
        if self._by_column is None:
            self._by_column = self._sort()
        pointers, rows, order = self._by_column
        return torch.mm(_csr(pointers, rows, values[order], self.shape[::-1]), right)

    def _sort(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return where each column begins, and rows and places of the entries by column."""
        columns = self.active.columns
        if columns.device.type == "cpu":  # scipy sorts by counting
            places = np.arange(columns.numel())
            by_row = (places, columns.numpy(), self.pointers.numpy())
            sorted_ = sp.csc_array(sp.csr_array(by_row, shape=self.shape))
            parts = (sorted_.indptr, sorted_.indices, sorted_.data)
            pointers, rows, order = (torch.from_numpy(part.astype(np.int64)) for part in parts)
            return pointers, rows, order
        order = torch.argsort(columns, stable=True)
        return _pointers(columns[order], self.shape[1]), self.active.rows[order], order

    def sampled(
        self, left: Float[Tensor, "B C"], right: Float[Tensor, "F C"]
    ) -> Float[Tensor, " K"]:
        """Return ⟨left_i, right_j⟩ of the active entries."""
        zeros = left.new_zeros(self.active.rows.numel())
        pattern = _csr(self.pointers, self.active.columns, zeros, self.shape)
        products: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
        return products


class DenseProducts:
    """The same through dense matrices."""

    def __init__(self, active: Active, shape: tuple[int, int]) -> None:
        self.active = active
        self.shape = shape

    def _dense(self, values: Float[Tensor, " K"]) -> Float[Tensor, "B F"]:
        dense = values.new_zeros(self.shape)
        dense[self.active.rows, self.active.columns] = values
        return dense

    def matmul(
        self, values: Float[Tensor, " K"], right: Float[Tensor, "F C"], bias: Float[Tensor, " C"]
    ) -> Float[Tensor, "B C"]:
        """Return S @ right + bias."""
        return torch.addmm(bias, self._dense(values), right)

    def transposed(
        self, values: Float[Tensor, " K"], right: Float[Tensor, "B C"]
    ) -> Float[Tensor, "F C"]:
        """Return Sᵀ @ right."""
        return self._dense(values).T @ right

    def sampled(
        self, left: Float[Tensor, "B C"], right: Float[Tensor, "F C"]
    ) -> Float[Tensor, " K"]:
        """Return ⟨left_i, right_j⟩ of the active entries."""
        return (left @ right.T)[self.active.rows, self.active.columns]


def _pointers(rows: Int[Tensor, " K"], count: int) -> Int[Tensor, " {count}+1"]:
    """Return where each of ``count`` rows begins, for sorted row numbers."""
    # A GPU's bincount waits for its smallest and its largest value.
    return torch.searchsorted(rows, torch.arange(count + 1, device=rows.device))


def _csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.sparse_csr_tensor(pointers, columns, values, size=shape, check_invariants=False)
