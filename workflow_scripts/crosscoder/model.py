"""The crosscoder: one dictionary of latents that several models share.

Shapes: B tokens in a batch, M models, D width of the residual stream, F latents, MD = M·D.

A latent j has one encoder and one decoder direction per model [Lindsey et al. 2024]::

    pre = Σ_m W_enc^m h^m + b_enc          f = relu(pre) where score > threshold, else 0
    ĥ^m = Σ_j f_j d_j^m + b_dec^m          score_j = relu(pre_j) · Σ_m ‖d_j^m‖ / cost_j

Activations are in normalised space: x^m = (h^m − mean^m) / scale^m.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import atomic_path, read_json, write_json
from workflow_scripts.common.precision import rounded_products, rounds_factors

FORMAT = "diffscope-crosscoder"
FORMAT_VERSION = 2  # with costs; 1 without
EVERY = slice(None)
BLOCK = 512  # latents whose directions are held in float64 at once
WEIGHTS = "crosscoder.safetensors"
OF_LATENTS = {"encoder", "encoder_bias", "decoder", "costs"}
"""Tensors with a row per latent."""
SETTINGS = "crosscoder.json"


@dataclass
class Weights:
    """The trained tensors, with the models side by side: column m·D + d belongs to model m."""

    encoder: Float[Tensor, "F MD"]
    encoder_bias: Float[Tensor, " F"]
    decoder: Float[Tensor, "F MD"]
    decoder_bias: Float[Tensor, " MD"]
    models: int

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, in a fixed order."""
        return {
            "encoder": self.encoder,
            "encoder_bias": self.encoder_bias,
            "decoder": self.decoder,
            "decoder_bias": self.decoder_bias,
        }

    def map(self, function: Callable[[Tensor], Tensor]) -> Weights:
        """Return weights with the ``function`` of each tensor."""
        tensors = {name: function(tensor) for name, tensor in self.tensors().items()}
        return Weights(**tensors, models=self.models)

    @property
    def latents(self) -> int:
        """Number of latents F."""
        return self.decoder.shape[0]

    @property
    def width(self) -> int:
        """Width D of the residual stream."""
        return self.decoder.shape[1] // self.models

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.decoder.device

    @property
    def directions(self) -> Float[Tensor, "F M D"]:
        """Decoder directions of every latent in every model, a view."""
        return self.decoder.view(self.latents, self.models, self.width)

    def norms(self) -> Float[Tensor, "F M"]:
        """Return the decoder norm of every latent in every model."""
        norms: Tensor = torch.linalg.vector_norm(self.directions, dim=2)
        return norms

    def pre_activations(
        self, x: Float[Tensor, "B MD"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B F"]:
        """Return the encoder's output before the sparsity rule; in bfloat16 it is rounded."""
        if dtype == torch.bfloat16:
            if x.device.type == "cpu" and rounds_factors():
                # Rounded inside the product, which spares passes over [B, F].
                with rounded_products():
                    return torch.mm(x, self.encoder.T).add_(self.encoder_bias)
            product = torch.mm(x.to(dtype), self.encoder.to(dtype).T)
            return product.to(x.dtype).add_(self.encoder_bias)
        return torch.addmm(self.encoder_bias, x, self.encoder.T)


def score_scales(
    norms: Float[Tensor, "F M"], costs: Float[Tensor, " F"] | None = None
) -> Float[Tensor, " F"]:
    """Return by what a latent's pre-activation is multiplied to give its score."""
    total = norms.sum(1)
    return total if costs is None else total / costs


def inner_products(directions: Float[Tensor, "F M D"]) -> Float64[np.ndarray, "F M M"]:
    """Return ⟨d_j^m, d_j^n⟩ of every latent in float64, equal for equal directions."""
    latents, models, _ = directions.shape
    products = np.empty((latents, models, models))  # at once: pieces would scatter the heap
    for first in range(0, latents, BLOCK):
        d = directions[first : first + BLOCK].double()
        for m, n in combinations_with_replacement(range(models), 2):
            product = (d[:, m] * d[:, n]).sum(1).cpu().numpy()
            products[first : first + BLOCK, [m, n], [n, m]] = product[:, None]
    return products


@dataclass
class Crosscoder:
    """A fitted crosscoder, in threshold mode.

    Load one with ``Crosscoder.load(folder)``.
    """

    models: list[str]
    weights: Weights
    threshold: float
    mean: Float[Tensor, "M D"]  # of the raw activations
    scale: Float[Tensor, " M"]
    k: int
    settings: dict[str, object]
    costs: Float[Tensor, " F"] | None = None  # what a latent's score is divided by; none: 1

    @property
    def width(self) -> int:
        """Width D of the residual stream."""
        return self.weights.width

    @property
    def latents(self) -> int:
        """Number of latents F."""
        return self.weights.latents

    @property
    def variant(self) -> str:
        """The sparsity rule of its training."""
        training = self.settings.get("training", {})
        return str(training["variant"]) if isinstance(training, dict) else "batch_topk"

    @property
    def w_dec(self) -> Float[Tensor, "F M D"]:
        """Decoder directions."""
        return self.weights.directions

    @property
    def b_dec(self) -> Float[Tensor, "M D"]:
        """Decoder biases."""
        return self.weights.decoder_bias.view(len(self.models), self.width)

    def decoder_norms(self) -> Float[Tensor, "F M"]:
        """Return ‖d_j^m‖."""
        return self.weights.norms()

    def score_scales(self) -> Float[Tensor, " F"]:
        """Return by what a latent's activation is multiplied to give its score."""
        return score_scales(self.decoder_norms(), self.costs)

    def to(self, device: torch.device) -> Crosscoder:
        """Return the same crosscoder with its tensors on ``device``."""
        return replace(
            self,
            weights=self.weights.map(lambda tensor: tensor.to(device)),
            mean=self.mean.to(device),
            scale=self.scale.to(device),
            costs=None if self.costs is None else self.costs.to(device),
        )

    def normalize(self, h: Float[Tensor, "B M D"]) -> Float[Tensor, "B M D"]:
        """Map raw activations to normalised space."""
        return (h - self.mean) / self.scale[:, None]

    def pre_activations(self, x: Float[Tensor, "B M D"]) -> Float[Tensor, "B F"]:
        """Return the encoder's output before the sparsity rule."""
        return self.weights.pre_activations(x.flatten(1))

    def encode(self, x: Float[Tensor, "B M D"]) -> Float[Tensor, "B F"]:
        """Return latent activations f ≥ 0 of normalised activations."""
        pre = self.pre_activations(x).relu_()
        return pre.mul_(pre * self.score_scales() > self.threshold)

    def decode(self, f: Float[Tensor, "B F"]) -> Float[Tensor, "B M D"]:
        """Return the reconstruction of latent activations."""
        flat = torch.addmm(self.weights.decoder_bias, f, self.weights.decoder)
        return flat.view(-1, len(self.models), self.width)

    def save(self, folder: Path) -> None:
        """Write ``crosscoder.safetensors`` and ``crosscoder.json`` into ``folder``."""
        tensors = self.weights.tensors() | {
            "mean": self.mean,
            "scale": self.scale,
            "threshold": torch.tensor(self.threshold, dtype=torch.float64),
        }
        if self.costs is not None:
            tensors["costs"] = self.costs
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary)
        write_json(
            folder / SETTINGS,
            {
                **self.settings,
                "format": FORMAT,
                "format_version": 1 if self.costs is None else FORMAT_VERSION,
                "models": self.models,
                "k": self.k,
                "threshold": self.threshold,
            },
        )

    @classmethod
    def load(cls, folder: Path | str, latents: Sequence[int] | None = None) -> Crosscoder:
        """Read a crosscoder that :meth:`save` wrote, or some of its ``latents`` in their order.

        In threshold mode a latent depends on no other one.

        Raises
        ------
        UserError
            If the folder holds no crosscoder, or one of a newer format.
        """
        folder = Path(folder)
        settings = read_json(folder / SETTINGS)
        if settings.get("format") != FORMAT:
            raise UserError(f"{folder / SETTINGS} describes no crosscoder: give a fit's folder")
        if settings["format_version"] > FORMAT_VERSION:
            raise UserError(f"{folder} was written by a newer diffscope: update this one")
        path = folder / WEIGHTS
        tensors = load_file(path) if latents is None else _read_latents(path, latents)
        return cls(
            models=list(settings["models"]),
            weights=Weights(
                tensors["encoder"],
                tensors["encoder_bias"],
                tensors["decoder"],
                tensors["decoder_bias"],
                models=len(settings["models"]),
            ),
            threshold=float(tensors["threshold"]),
            mean=tensors["mean"],
            scale=tensors["scale"],
            k=int(settings["k"]),
            settings=settings,
            costs=tensors.get("costs"),
        )


def _read_latents(path: Path, latents: Sequence[int]) -> dict[str, Tensor]:
    """Read the tensors of some latents, row by row: a mapped file would be in memory as a whole."""
    with safe_open(path, framework="pt") as mapped:
        tensors = {n: mapped.get_tensor(n) for n in set(mapped.keys()) - OF_LATENTS}
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name in header.keys() & OF_LATENTS:
            first, last = header[name]["data_offsets"]
            rows, *shape = header[name]["shape"]
            size = (last - first) // rows
            held = np.empty((len(latents), size), dtype=np.uint8)
            for own, latent in zip(held, latents, strict=True):
                file.seek(start + first + latent * size)
                file.readinto(own)
            tensors[name] = torch.from_numpy(held.view(np.float32)).view(len(latents), *shape)
    return tensors


def load_decoder(folder: Path) -> Float[Tensor, "F MD"]:
    """Read the decoder alone of a crosscoder that :meth:`Crosscoder.save` wrote."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        decoder: Tensor = file.get_tensor("decoder")
    return decoder


def initial_weights(
    latents: int, models: int, width: int, seed: int, norm: float, part: slice = EVERY
) -> Weights:
    """Draw initial weights: one direction per latent, the same in every model, encoder = decoderᵀ.

    The decoder bias starts at zero, which is the mean in normalised space. Each model's decoder
    direction has length ``norm``. Only those of a ``part`` of the latents are returned.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(latents, width, generator=generator)[part]
    direction = direction / direction.norm(dim=1, keepdim=True) * norm
    decoder = direction.repeat(1, models)
    return Weights(
        encoder=decoder.clone(),
        encoder_bias=torch.zeros(len(decoder)),
        decoder=decoder,
        decoder_bias=torch.zeros(models * width),
        models=models,
    )
