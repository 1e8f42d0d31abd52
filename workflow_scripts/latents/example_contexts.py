"""Where latents fire in a split, and the activations in the windows that show it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float32, Int

from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.crosscoder.codes import encode
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.example_windows import KINDS, Peaks, Windows, spread
from workflow_scripts.latents.token_context import TokenContext
from workflow_scripts.latents.token_text import whole_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXPLAIN, VERIFY = "explain", "verify"
ShownWindows = tuple[pd.DataFrame, Float32[np.ndarray, " n"] | None]
"""Windows, and the activations of all their tokens end to end where they show a latent."""
IN_MEMORY = 1 << 30  # bytes of a split's activations that are kept while windows are read


def find_peaks(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    split: str,
    batch: int = 4096,
) -> pd.DataFrame:
    """Return, for each latent and document in which it fires, its strongest token.

    The crosscoder holds the latents that are shown alone. Columns ``place`` (of the latent in it),
    ``row``, ``token`` (global index), ``value``.
    """
    usable_rows(store, split)
    parts = []
    for rows, x in store.contiguous(split, batch):
        f = encode(crosscoder, torch.from_numpy(x).to(crosscoder.mean.device)).to("cpu")
        tokens = rows[f.active.rows.numpy()]
        columns = {
            "place": f.active.columns.numpy().astype(np.int32),
            "row": context.row_of(tokens).astype(np.int32),
            "token": tokens,
            "value": f.values.numpy(),
        }
        parts.append(strongest(pd.DataFrame(columns)))
    return strongest(pd.concat(parts))


def strongest(peaks: pd.DataFrame) -> pd.DataFrame:
    """Return the last of the strongest rows of every latent and document, in their order."""
    keys = [peaks[name].to_numpy() for name in ("value", "row", "place")]
    order = np.lexsort(keys)
    _, row, place = (key[order] for key in keys)
    end = np.ones(min(len(order), 1), dtype=bool)
    last = np.append((np.diff(place) != 0) | (np.diff(row) != 0), end)
    kept: pd.DataFrame = peaks.iloc[order[last]].reset_index(drop=True)
    return kept


def usable_rows(store: ActivationStore, split: str) -> Int[np.ndarray, " N"]:
    """Return the usable tokens of a split, or refuse one without any."""
    rows = store.rows(split)
    if not len(rows):
        raise cli.UserError(f"the {split} split holds no usable token: raise text.tokens")
    return rows


class SplitReader:
    """The usable tokens of a split and their activations, held in memory when they are few."""

    def __init__(self, store: ActivationStore, split: str) -> None:
        self.store = store
        self.kept = usable_rows(store, split)
        size = 4 * len(self.kept) * len(store.models) * store.width
        self._x = store.read(self.kept) if size <= IN_MEMORY else None

    def read(
        self, tokens: Int[np.ndarray, " n"]
    ) -> tuple[Bool[np.ndarray, " n"], Float32[np.ndarray, "usable M D"]]:
        """Return which of ``tokens`` are usable, and those ones' activations."""
        place = np.searchsorted(self.kept, tokens)
        present = np.append(self.kept, -1)[place] == tokens
        if self._x is not None:
            return present, self._x[place[present]]
        rows, inverse = np.unique(tokens[present], return_inverse=True)
        return present, self.store.read(rows)[inverse]


def window_activations(
    reader: SplitReader, crosscoder: Crosscoder, place: int, tokens: Int[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, "n M"]]:
    """Return the activation of the latent at ``place`` at ``tokens``, and its parts by model.

    A model's part is what its activations add before bias and sparsity rule. Both are 0 where
    tokens are dropped.
    """
    present, read = reader.read(tokens)
    models = len(crosscoder.models)
    values = np.zeros(len(tokens), dtype=np.float32)
    parts = np.zeros((len(tokens), models), dtype=np.float32)
    if len(read):
        weights = crosscoder.weights
        encoder = weights.encoder[place].unflatten(0, (models, -1))
        own = torch.einsum("nmd,md->nm", torch.from_numpy(read), encoder)
        parts[present] = own.numpy()
        pre = (own.sum(1) + weights.encoder_bias[place]).relu_()
        norm = weights.decoder[place].unflatten(0, (models, -1)).norm(dim=1).sum()
        scale = norm if crosscoder.costs is None else norm / crosscoder.costs[place]
        values[present] = (pre * (pre * scale > crosscoder.threshold)).numpy()
    return values, parts


def peaks_of(peaks: pd.DataFrame, latents: int) -> list[Peaks]:
    """Return the rows of :func:`find_peaks` of each of so many latents."""
    bounds = np.searchsorted(peaks["place"], np.arange(latents + 1, dtype=np.int32))
    columns = [peaks[name].to_numpy() for name in ("row", "token", "value")]
    return [Peaks(*(column[a:b] for column in columns)) for a, b in pairwise(bounds)]


def frame_of(windows: Windows) -> pd.DataFrame:
    """Return windows as a table: ``row``, ``start``, ``end``, ``kind``, ``stratum``."""
    kind, stratum = (np.array(names)[windows.kind] for names in zip(*KINDS, strict=True))
    return pd.DataFrame(
        {
            "row": windows.row,
            "start": windows.start,
            "end": windows.end,
            "kind": kind,
            "stratum": stratum,
        }
    )


def write_windows(
    path: Path,
    parts: Iterable[ShownWindows],
    context: TokenContext,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Write windows as Parquet, one row each, with a list column per property of their pieces.

    Each part becomes row groups of its own, so that no more than one is in memory. Windows without
    a whole character are left out.
    """
    with ExitStack() as stack:
        temporary = stack.enter_context(files.atomic_path(path))
        writer: pq.ParquetWriter | None = None
        for windows, values in parts:
            table = _table(windows, values, context, tokenizer)
            if writer is None:
                out = pq.ParquetWriter(temporary, table.schema, compression="zstd")
                writer = stack.enter_context(out)
            writer.write_table(table)


def _table(
    windows: pd.DataFrame,
    values: Float32[np.ndarray, " n"] | None,
    context: TokenContext,
    tokenizer: PreTrainedTokenizerBase,
) -> pa.Table:
    """Return windows as :func:`write_windows` writes them."""
    start, end = windows["start"].to_numpy(np.int64), windows["end"].to_numpy(np.int64)
    index, window = spread(start, end)
    template, role = context.template[index], context.role[index]
    first = np.concatenate([[0], np.cumsum(end - start)])[:-1]
    apart = np.ones(len(index), dtype=bool)
    apart[1:] = (np.diff(template) != 0) | (np.diff(role) != 0)
    pieces = whole_pieces(tokenizer, context.ids[index], first, apart)
    counts = np.bincount(pieces.first(window), minlength=len(windows))
    offsets = np.concatenate([[0], np.cumsum(counts[counts > 0])])
    rows = windows[counts > 0]
    table = {name: pa.array(rows[name].to_numpy()) for name in rows.columns if name != "row"}
    table["document"] = pa.array(context.document[start[counts > 0]])
    lists = {
        # Numbers of distinct texts: the texts of all pieces may be more than an array can hold.
        "pieces": pa.DictionaryArray.from_arrays(
            pieces.text.astype(np.int32), pa.array(pieces.texts, pa.string())
        ),
        "template": pa.array(pieces.first(template)),
        "role": pa.array(pieces.first(role)),
    }
    if values is not None:
        active = pieces.largest(values)
        lists["activations"] = pa.array(active)
        peak = strongest_places(active, offsets)
        table["max_activation"] = pa.array(active[offsets[:-1] + peak].astype(np.float64))
        table["peak"] = pa.array(peak)
    for name, flat in lists.items():
        table[name] = pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), flat)
    return pa.table(table)


def strongest_places(
    values: Float32[np.ndarray, " n"], offsets: Int[np.ndarray, " offsets"]
) -> Int[np.ndarray, " windows"]:
    """Return where in each window, laid end to end between ``offsets``, the value is largest."""
    return np.array(
        [int(values[a:b].argmax()) for a, b in pairwise(offsets)],
        dtype=np.int64,
    )
