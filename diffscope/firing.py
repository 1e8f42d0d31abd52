"""Which latents fire on a text: the models read it as the run's steps read documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffscope.run_paths import RunPaths
from workflow_scripts.common import files, hdf5
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.device import choose_device
from workflow_scripts.common.manifest import Manifest, load_tokenizer
from workflow_scripts.dataset.chats import RowError, parse_turns
from workflow_scripts.dataset.document_tables import TextDocument
from workflow_scripts.dataset.rendering import Renderer, fix_date
from workflow_scripts.dataset.shards import FORMAT, VERSION
from workflow_scripts.dataset.tokenize_documents import Encoder, TokenRows, pack
from workflow_scripts.dataset.vocabularies import control_ids, foreign_tokens, known_ids
from workflow_scripts.latents.ownership import owned_by
from workflow_scripts.latents.token_text import token_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from workflow_scripts.activations.store import Normalizer
    from workflow_scripts.crosscoder.model import Crosscoder

Text = str | Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Firing:
    """The latents that fire on a text."""

    tokens: tuple[str, ...]
    """the text of each token, BOS and template included"""
    read: tuple[bool, ...]
    """which tokens the crosscoder reads: not the first one, nor outliers in norm"""
    active: pd.DataFrame
    """a row per token and latent that fires on it, the strongest of a token first: ``position``,
    ``token``, ``latent``, ``activation``, ``score`` (activation times the decoder norms, by which
    latents compare), ``share_of_largest`` (of the latent's largest activation in the run),
    ``unique_to``, ``category``, ``explanation``"""

    def unique(self, model: str, most: int = 3) -> pd.DataFrame:
        """Return the rows of latents unique to a model, at most so many of each token."""
        own = self.active[owned_by(self.active["unique_to"], model)]
        return own.groupby("position").head(most).reset_index(drop=True)


@dataclass(frozen=True)
class TextReader:
    """All that reads a text: the encoder, M models, their normalisers and the crosscoder."""

    encoder: Encoder
    models: Mapping[str, PreTrainedModel]
    normalizers: Mapping[str, Normalizer]
    crosscoder: Crosscoder
    layer: int
    dtype: str

    @classmethod
    def load(
        cls, paths: RunPaths, crosscoder: Crosscoder, models: Sequence[str], layer: int
    ) -> TextReader:
        """Load the models, on a GPU where there is one.

        Raises
        ------
        UserError
            If a file of the run is not there any more.
        """
        import torch

        from workflow_scripts.activations.store import Normalizer
        from workflow_scripts.models.loading import load_model

        numbers, device = paths.config.activations, choose_device("auto")
        gpus = numbers.gpus if device.type == "cuda" else 1
        dtype: torch.dtype = getattr(torch, numbers.compute_dtype)
        encoder = text_encoder(paths, models)
        return cls(
            encoder,
            {name: load_model(paths.model(name), dtype, device, gpus) for name in models},
            {name: Normalizer.read(Path(paths.normalizer(name, layer))) for name in models},
            crosscoder,
            layer,
            numbers.dtype,
        )

    def fire(self, text: Text, latents: pd.DataFrame) -> Firing:
        """Return what fires; ``latents`` describes the live ones."""
        import torch

        rows = self._rows(text)
        ids = rows.rows[0].ids
        with torch.no_grad():
            h, read = self._activations(rows)
            codes = self._codes(h[read])
        pieces = token_bytes(self.encoder.renderer.tokenizer, ids)
        tokens = tuple(piece.decode("utf-8", errors="replace") for piece in pieces)
        position = np.flatnonzero(read.numpy())[codes["row"].to_numpy()]
        columns = ["latent", "unique_to", "category", "explanation", "activation_max"]
        table = codes.assign(position=position).merge(latents[columns], on="latent", how="left")
        names = ["unique_to", "category", "explanation"]
        table[names] = table[names].astype(object).fillna("")
        table["token"] = [tokens[place] for place in table["position"]]
        table["share_of_largest"] = table["activation"] / table["activation_max"]
        table = table.sort_values(["position", "score"], ascending=[True, False], kind="stable")
        shown = ["position", "token", "latent", "activation", "score", "share_of_largest", *names]
        return Firing(tokens, tuple(read.tolist()), table[shown].reset_index(drop=True))

    def _rows(self, text: Text) -> TokenRows:
        """Return the text encoded as a document of the run."""
        encoded = next(iter(self.encoder.encode([document_of(text)])))
        if isinstance(encoded, str):
            raise UserError(f"the text cannot be read as the run reads documents: it {encoded}")
        if encoded.whole > encoded.tokens:
            raise UserError(
                f"the text has {encoded.whole} tokens, but rows of the run have at most "
                f"{self.encoder.context_length}: shorten it"
            )
        return encoded

    def _activations(self, rows: TokenRows) -> tuple[Tensor, Tensor]:
        """Return raw activations [N, M, D], rounded as a dump rounds them, and which are read."""
        import torch

        from workflow_scripts.activations.dump_activations import compute
        from workflow_scripts.activations.layout import as_tensor

        shard, parts = pack([rows], ()), []
        read = torch.from_numpy(shard.position > 0)
        for name, model in self.models.items():
            width = self.crosscoder.width
            computed = compute(model, shard, [self.layer], width, self.dtype, shard.tokens)
            stretch = next(iter(computed))[1][self.layer]
            parts.append(as_tensor(stretch.values, self.dtype).float())
            bound = self.normalizers[name].norm_bound
            read &= torch.from_numpy((stretch.norms <= bound) & ~stretch.outside)
        return torch.stack(parts, 1), read

    def _codes(self, h: Tensor) -> pd.DataFrame:
        """Return the entries of the latents' activations: row, latent, activation and score."""
        from workflow_scripts.crosscoder.codes import encode

        codes = encode(self.crosscoder, self.crosscoder.normalize(h))
        scores = codes.values * self.crosscoder.score_scales()[codes.active.columns]
        entries = {"row": codes.active.rows, "latent": codes.active.columns}
        values = entries | {"activation": codes.values, "score": scores}
        return pd.DataFrame({name: column.numpy() for name, column in values.items()})


def document_of(text: Text) -> TextDocument:
    """Return a text as a document of the run.

    Raises
    ------
    UserError
        If it is empty, or a chat of another form.
    """
    if isinstance(text, str):
        if not text.strip():
            raise UserError("the text is empty: give some")
        return TextDocument(0, "plain", "", "fit", text, "")
    try:
        turns, _ = parse_turns(list(text))
    except RowError as error:
        raise UserError(f"the chat {error}") from None
    if not turns:
        raise UserError("the chat is empty: give at least one message")
    messages = json.dumps([turn.message() for turn in turns], ensure_ascii=False)
    return TextDocument(0, "chat", "", "fit", "", messages)


def text_encoder(paths: RunPaths, models: Sequence[str]) -> Encoder:
    """Return what encodes documents as the run did, for some of its models.

    Raises
    ------
    UserError
        If the token shards, a model or its tokenizer are not there any more.
    """
    with hdf5.open_complete(paths.first_tokens, FORMAT, VERSION) as file:
        origin: dict[str, Any] = json.loads(hdf5.get_text(file, "provenance"))
    name, config = str(origin["encoder"]), paths.config.text
    template = files.read_json(paths.folder / "dataset" / "manifest.json")["tokens"]["template"]
    known = {model: load_tokenizer(paths.model(model)) for model in dict.fromkeys([name, *models])}
    sizes = {model: Manifest.read(paths.model(model)).vocabulary for model in models}
    renderer = Renderer(known[name], config.context_length)
    renderer.tokenizer.chat_template = fix_date(template) if template else None
    return Encoder(
        renderer,
        known_ids(known, sizes),
        control_ids(known[name]),
        foreign_tokens(known, name),
        (),
        config.context_length,
    )
