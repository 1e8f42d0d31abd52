"""Which tokens does each latent promote and suppress? ``promoted.parquet``.

Each latent's decoder direction in each model is read through that model's final norm and
unembedding. Random directions are the null: some token is always the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workflow_scripts.activations.settings import Precision
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import load_tokenizer
from workflow_scripts.common.progress import track
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.settings import Promotion
from workflow_scripts.latents.token_text import token_texts
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.unembedding import Unembedding, strongest

ROWS = 256
"""Directions whose logits exist at one time."""
RANDOM = 400
"""Random directions of the null."""
SIDES = {"promoted": 1.0, "suppressed": -1.0}
COLUMNS = ("latent", "model", "side", "tokens", "scores", "p")
"""Columns of ``promoted.parquet``; ``COLUMNS.md`` says what each means."""


def promote_tokens(
    models: dict[str, Path],
    crosscoder: Path,
    selection: Path,
    tokenizer: Path,
    promotion: Promotion,
    seed: int,
    precision: Precision,
    compute: Compute,
    output: Path,
) -> None:
    """Write the tokens that live latents promote and suppress.

    Parameters
    ----------
    models
        manifests of the crosscoder's models
    crosscoder
        folder of the crosscoder
    selection
        live latents (Parquet)
    tokenizer
        ``model.json`` of a model that has the tokenizer
    seed
        seed of the random directions
    output
        table to write, a row per latent, model and side (Parquet)
    """
    device = compute.start()
    fitted, reader = Crosscoder.load(crosscoder), load_tokenizer(tokenizer)
    live = files.read_parquet(selection, ["latent"])["latent"].to_numpy(dtype=np.int64)
    parts = []
    for place, name in enumerate(fitted.models):
        model = load_model(models[name], precision.on(device), device)
        directions = fitted.w_dec[torch.tensor(live), place]
        found = tokens_of(
            Unembedding(model), directions, len(reader), promotion.promoted_tokens, seed
        )
        for side, ids in found:
            words = pd.Series(token_texts(reader, ids), dtype=object)
            parts.append(side.assign(latent=live, model=name, tokens=words))
        del model
    table = pd.concat(parts).sort_values(["latent", "model", "side"], kind="stable")
    files.write_parquet(output, table[list(COLUMNS)].reset_index(drop=True))


def tokens_of(
    unembedding: Unembedding,
    directions: Float[Tensor, "N D"],
    known: int,
    count: int,
    seed: int,
) -> Iterator[tuple[pd.DataFrame, Int[np.ndarray, "N n"]]]:
    """Yield by side a frame of ``side``, ``scores`` and ``p`` by direction, and token ids.

    Of the vocabulary, the first ``known`` tokens: the rest has no text.
    """
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn((RANDOM, directions.shape[1]), generator=generator)
    null = _read(unembedding, random, known, 1)[0][:, 0].sort().values
    for side, sign in SIDES.items():
        scores, ids = _read(unembedding, sign * directions, known, count)
        above = RANDOM - torch.searchsorted(null, scores[:, 0].contiguous())
        frame = pd.DataFrame({"side": side, "p": ((1 + above) / (1 + RANDOM)).numpy()})
        yield frame.assign(scores=list(scores.numpy())), ids.numpy()


def _read(
    unembedding: Unembedding, directions: Float[Tensor, "N D"], known: int, count: int
) -> tuple[Float[Tensor, "N n"], Int[Tensor, "N n"]]:
    """Return the ``count`` largest logits of each direction, in standard deviations, and ids."""
    parts = [
        strongest(unembedding.read(part)[:, :known], count)
        for part in track(directions.split(ROWS), "blocks of directions")
    ]
    values, ids = zip(*parts, strict=True)
    return torch.cat(values).cpu(), torch.cat(ids).cpu()


main = cli.command(promote_tokens)


if __name__ == "__main__":
    raise SystemExit(main())
