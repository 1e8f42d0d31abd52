"""Collect contexts of the unique latents and of a random sample of the other live ones.

Contexts from which an explanation is made come from the ``explain`` split, those on which it is
scored from the ``verify`` split. Negatives are windows of documents in which the latent never
fires: half random, half near in wording.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float32, Int, Shaped

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import load_tokenizer
from workflow_scripts.crosscoder.codes import encode
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.activity import CPU
from workflow_scripts.latents.example_windows import (
    KINDS,
    Peaks,
    Pool,
    Windows,
    joined,
    negative_windows,
    positive_windows,
    spread,
)
from workflow_scripts.latents.settings import Examples
from workflow_scripts.latents.token_context import TokenContext, read_context

EXPLAIN, VERIFY = "explain", "verify"
IN_MEMORY = 1 << 30  # bytes of a split's activations that are kept while windows are read


def choose_latents(selection: pd.DataFrame, shared: int, seed: int) -> pd.DataFrame:
    """Return the latents to show: ``latent``, ``unique_to``, ``sample_weight``, by latent.

    Every latent that is unique against some model is shown; of the others a random sample, each
    standing for live/sampled of them.
    """
    claims = [name for name in selection.columns if name.startswith("unique_") and "_vs_" in name]
    unique = selection[claims].any(axis=1)
    others = selection[~unique]
    rng = np.random.default_rng([seed, 1])
    picked = others.iloc[np.sort(rng.permutation(len(others))[:shared])]
    weight = len(others) / max(len(picked), 1)
    chosen = pd.concat(
        [
            selection[unique][["latent", "unique_to"]].assign(sample_weight=1.0),
            picked[["latent", "unique_to"]].assign(sample_weight=weight),
        ]
    )
    return chosen.sort_values("latent").reset_index(drop=True)


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
    last = np.append((np.diff(latent) != 0) | (np.diff(row) != 0), [True] * (len(order) > 0))
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


def collect_split(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    chosen: pd.DataFrame,
    settings: Examples,
    seed: int,
    split: str,
    device: torch.device = CPU,
) -> tuple[pd.DataFrame, Float32[np.ndarray, " n"], Pool]:
    """Return the windows of every chosen latent, their activations end to end, and the pool."""
    counts = settings.explain if split == EXPLAIN else settings.verify
    code = 0 if split == EXPLAIN else 1
    reader = SplitReader(store, split)
    rng = np.random.default_rng([seed, 2, code])
    pool = Pool(reader.kept, context, settings.window, settings.pool, rng)
    latents = chosen["latent"].to_numpy()
    strongest_tokens = find_peaks(store, crosscoder.to(device), context, latents, split)
    peaks = peaks_of(strongest_tokens, latents)
    seeds = [[seed, 3, code, latent] for latent in latents.tolist()]
    positives = [
        positive_windows(own, context, settings.window, counts, own_seed)
        for own, own_seed in zip(peaks, seeds, strict=True)
    ]
    parts, values, strongest, at_peak = [], [], [], []
    each = zip(latents.tolist(), peaks, positives, seeds, strict=True)
    near = pool.similarity(positives, context)
    for latent, own, positive, own_seed in cli.progress(each, total=len(latents), desc=split):
        negative = negative_windows(own, next(near), pool, context, counts, own_seed)
        both = joined([positive, negative])
        index, _ = spread(both.start, both.end)
        active, by_model = window_activations(reader, crosscoder, latent, index)
        offsets = np.concatenate([[0], np.cumsum(both.end - both.start)])
        at_peak.append(by_model[offsets[:-1] + _peaks(active, offsets)])
        values.append(active)
        parts.append(both)
        strongest.append(float(own.value.max()) if len(own.value) else 0.0)
    place = np.repeat(np.arange(len(parts)), [len(part.row) for part in parts])
    windows = frame_of(joined(parts)).join(
        chosen.iloc[place].reset_index(drop=True).assign(split=split)
    )
    windows["latent_max"] = np.array(strongest)[place]
    for model, part in zip(crosscoder.models, np.concatenate(at_peak).T, strict=True):
        windows[f"part_{model}"] = part.astype(np.float64)
    return windows, np.concatenate(values), pool


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


def token_pieces(tokenizer: object, size: int) -> Shaped[np.ndarray, " size"]:
    """Return the text of every token id below ``size``, spaces kept, special tokens shown.

    Each id is decoded behind an anchor, because some tokenizers strip a leading space. A token
    that holds only part of a character shows as U+FFFD.
    """
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]  # type: ignore[attr-defined]
    decode = tokenizer.decode  # type: ignore[attr-defined]
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
        table["peak"] = pa.array(_peaks(values, offsets))
    for name, flat in lists.items():
        table[name] = pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), flat)
    with files.atomic_path(path) as temporary:
        pq.write_table(pa.table(table), temporary, compression="zstd")


def _peaks(
    values: Float32[np.ndarray, " n"], offsets: Int[np.ndarray, " offsets"]
) -> Int[np.ndarray, " windows"]:
    return np.array(
        [int(values[a:b].argmax()) for a, b in pairwise(offsets)],
        dtype=np.int64,
    )


@torch.no_grad()
def collect_examples(
    inputs: StoreInputs,
    tokens: list[Path],
    crosscoder: Path,
    selection: Path,
    tokenizer: Path,
    settings: Examples,
    seed: int,
    compute: Compute,
    examples: Path,
    background: Path,
    sampled: Path,
) -> None:
    """Write contexts of the unique latents and of a sample of the others.

    Parameters
    ----------
    tokens
        token shards, in order
    crosscoder
        folder of the crosscoder
    selection
        which latents are unique (Parquet)
    tokenizer
        ``model.json`` of a model that has the tokenizer
    seed
        seed of the samples
    examples
        table to write, a row per context (Parquet)
    background
        table to write: the explain split's random windows, for reference counts (Parquet)
    sampled
        table to write: the latents shown, and how many each stands for (Parquet)

    Raises
    ------
    UserError
        If no latent is live.
    """
    device = compute.start()
    store, fitted, context = inputs.open(), Crosscoder.load(crosscoder), read_context(tokens)
    chosen = choose_latents(files.read_parquet(selection), settings.shared_latents, seed)
    if chosen.empty:
        raise cli.UserError("no latent is live: fit on more tokens or lower fits.*.k")
    pieces = token_pieces(load_tokenizer(tokenizer), int(context.ids.max()) + 1)
    (windows, values, pool), (verify, verify_values, _) = (
        collect_split(store, fitted, context, chosen, settings, seed, split, device)
        for split in (EXPLAIN, VERIFY)
    )
    windows = pd.concat([windows, verify], ignore_index=True)
    values = np.concatenate([values, verify_values])
    write_windows(examples, windows, values, context, pieces)
    windows = pd.DataFrame({"row": pool.row, "start": pool.start, "end": pool.end})
    write_windows(background, windows, None, context, pieces)
    weights = chosen[["latent", "sample_weight"]].rename(columns={"sample_weight": "weight"})
    files.write_parquet(sampled, weights)


main = cli.command(collect_examples)


if __name__ == "__main__":
    raise SystemExit(main())
