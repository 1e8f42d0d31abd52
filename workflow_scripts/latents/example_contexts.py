"""Where latents fire in a split, and the activations in the windows that show it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float32, Int, Shaped

from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.crosscoder.codes import encode
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.example_windows import KINDS, Peaks, Windows, spread
from workflow_scripts.latents.token_context import TokenContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXPLAIN, VERIFY = "explain", "verify"
IN_MEMORY = 1 << 30  # bytes of a split's activations that are kept while windows are read


def find_peaks(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    latents: Int[np.ndarray, " latents"],
    split: str,
    batch: int = 4096,
) -> pd.DataFrame:
    """Return, for each chosen latent and document in which it fires, its strongest token.

    Columns ``latent``, ``row``, ``token`` (global index), ``value``.
    """
    wanted = torch.zeros(crosscoder.latents, dtype=torch.bool)
    wanted[torch.tensor(latents)] = True
    parts = []
    for rows, x in store.contiguous(split, batch):
        f = encode(crosscoder, torch.from_numpy(x).to(crosscoder.mean.device)).to("cpu").of(wanted)
        tokens = rows[f.active.rows.numpy()]
        columns = {
            "latent": f.active.columns.numpy(),
            "row": context.row_of(tokens),
            "token": tokens,
            "value": f.values.numpy(),
        }
        parts.append(strongest(pd.DataFrame(columns)))
    if not parts:
        raise cli.UserError(f"the {split} split holds no usable token: raise text.tokens")
    return strongest(pd.concat(parts))


def strongest(peaks: pd.DataFrame) -> pd.DataFrame:
    """Return the last of the strongest rows of every latent and document, in their order."""
    keys = [peaks[name].to_numpy() for name in ("value", "row", "latent")]
    order = np.lexsort(keys)
    _, row, latent = (key[order] for key in keys)
    end = np.ones(min(len(order), 1), dtype=bool)
    last = np.append((np.diff(latent) != 0) | (np.diff(row) != 0), end)
    kept: pd.DataFrame = peaks.iloc[order[last]].reset_index(drop=True)
    return kept


class SplitReader:
    """The usable tokens of a split and their activations, held in memory when they are few."""

    def __init__(self, store: ActivationStore, split: str) -> None:
        self.store = store
        self.kept = store.rows(split)
        if not len(self.kept):
            raise cli.UserError(f"the {split} split holds no usable token: raise text.tokens")
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
    reader: SplitReader, crosscoder: Crosscoder, latent: int, tokens: Int[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, "n M"]]:
    """Return one latent's activation at ``tokens``, and its parts by model.

    A model's part is what its activations add before bias and sparsity rule. Both are 0 where
    tokens are dropped.
    """
    present, read = reader.read(tokens)
    models = len(crosscoder.models)
    values = np.zeros(len(tokens), dtype=np.float32)
    parts = np.zeros((len(tokens), models), dtype=np.float32)
    if len(read):
        weights = crosscoder.weights
        encoder = weights.encoder[latent].unflatten(0, (models, -1))
        own = torch.einsum("nmd,md->nm", torch.from_numpy(read), encoder)
        parts[present] = own.numpy()
        pre = (own.sum(1) + weights.encoder_bias[latent]).relu_()
        norm = weights.decoder[latent].unflatten(0, (models, -1)).norm(dim=1).sum()
        scale = norm if crosscoder.costs is None else norm / crosscoder.costs[latent]
        values[present] = (pre * (pre * scale > crosscoder.threshold)).numpy()
    return values, parts


def peaks_of(peaks: pd.DataFrame, latents: Int[np.ndarray, " latents"]) -> list[Peaks]:
    """Return the rows of :func:`find_peaks` of each latent."""
    bounds = zip(
        *(np.searchsorted(peaks["latent"], latents + side) for side in (0, 1)), strict=True
    )
    columns = [peaks[name].to_numpy() for name in ("row", "token", "value")]
    return [Peaks(*(column[first:last] for column in columns)) for first, last in bounds]


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


def token_pieces(tokenizer: PreTrainedTokenizerBase, size: int) -> Shaped[np.ndarray, " size"]:
    """Return the text of every token id below ``size``, spaces kept, special tokens shown.

    Each id is decoded behind an anchor, because some tokenizers strip a leading space. A token
    that holds only part of a character shows as U+FFFD.
    """
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
    decode = tokenizer.decode
    prefix = decode(anchor, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    pieces = [
        decode([*anchor, i], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for i in range(size)
    ]
    return np.array([piece[len(prefix) :] for piece in pieces], dtype=object)


def write_windows(
    path: Path,
    windows: pd.DataFrame,
    values: Float32[np.ndarray, " n"] | None,
    context: TokenContext,
    pieces: Shaped[np.ndarray, " size"],
) -> None:
    """Write windows as Parquet, one row each, with a list column per token property."""
    start, end = windows["start"].to_numpy(np.int64), windows["end"].to_numpy(np.int64)
    index, _ = spread(start, end)
    offsets = np.concatenate([[0], np.cumsum(end - start)])
    table = {name: pa.array(windows[name].to_numpy()) for name in windows.columns if name != "row"}
    table["document"] = pa.array(context.document[start])
    vocabulary = pa.array(pieces, type=pa.string())
    lists = {
        "pieces": vocabulary.take(pa.array(context.ids[index])),
        "template": pa.array(context.template[index]),
        "role": pa.array(context.role[index]),
    }
    if values is not None:
        lists["activations"] = pa.array(values)
        maxima = np.maximum.reduceat(values, offsets[:-1]) if len(values) else values
        table["max_activation"] = pa.array(maxima.astype(np.float64))
        table["peak"] = pa.array(strongest_places(values, offsets))
    for name, flat in lists.items():
        table[name] = pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), flat)
    with files.atomic_path(path) as temporary:
        pq.write_table(pa.table(table), temporary, compression="zstd")


def strongest_places(
    values: Float32[np.ndarray, " n"], offsets: Int[np.ndarray, " offsets"]
) -> Int[np.ndarray, " windows"]:
    """Return where in each window, laid end to end between ``offsets``, the value is largest."""
    return np.array(
        [int(values[a:b].argmax()) for a, b in pairwise(offsets)],
        dtype=np.int64,
    )
