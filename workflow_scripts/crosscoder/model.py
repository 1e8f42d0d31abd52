"""The crosscoder: one dictionary of latents that several models share.

Shapes: B tokens in a batch, N tokens, M models, D width of the residual stream, F latents.

A latent j has one encoder and one decoder direction per model [Lindsey et al. 2024]::

    pre = Σ_m W_enc^m h^m + b_enc          f = relu(pre) where score > threshold, else 0
    ĥ^m = Σ_j f_j d_j^m + b_dec^m          score_j = relu(pre_j) · Σ_m ‖d_j^m‖ / cost_j

Activations are in normalised space: x^m = (h^m − mean^m) / scale^m.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import atomic_path, read_json, write_json

FORMAT = "diffscope-crosscoder"
FORMAT_VERSION = 2  # with costs; 1 without
WEIGHTS = "crosscoder.safetensors"
SETTINGS = "crosscoder.json"


@dataclass
class Weights:
    """The trained tensors, with the models side by side: column m·D + d belongs to model m."""

    encoder: Tensor  # [F, M·D]
    encoder_bias: Tensor  # [F]
    decoder: Tensor  # [F, M·D]
    decoder_bias: Tensor  # [M·D]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, in a fixed order."""
        return {
            "encoder": self.encoder,
            "encoder_bias": self.encoder_bias,
            "decoder": self.decoder,
            "decoder_bias": self.decoder_bias,
        }

    def to(self, device: torch.device) -> Weights:
        """Return the same tensors on ``device``."""
        return Weights(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def norms(self, models: int) -> Tensor:
        """Return the decoder norm of every latent in every model, [F, M]."""
        by_model = self.decoder.view(self.decoder.shape[0], models, -1)
        norms: Tensor = torch.linalg.vector_norm(by_model, dim=2)
        return norms


@dataclass
class Crosscoder:
    """A fitted crosscoder, in threshold mode.

    Load one with ``Crosscoder.load(folder)``.
    """

    models: list[str]
    weights: Weights
    threshold: float
    mean: Tensor  # [M, D] of the raw activations
    scale: Tensor  # [M]
    k: int
    settings: dict[str, object]
    costs: Tensor | None = None  # [F] what a latent's score is divided by; none: 1

    @property
    def width(self) -> int:
        """Width D of the residual stream."""
        return self.weights.decoder.shape[1] // len(self.models)

    @property
    def latents(self) -> int:
        """Number of latents F."""
        return self.weights.decoder.shape[0]

    @property
    def w_dec(self) -> Tensor:
        """Decoder directions, [F, M, D]."""
        return self.weights.decoder.view(self.latents, len(self.models), self.width)

    @property
    def b_dec(self) -> Tensor:
        """Decoder biases, [M, D]."""
        return self.weights.decoder_bias.view(len(self.models), self.width)

    def decoder_norms(self) -> Tensor:
        """Return ‖d_j^m‖ as [F, M]."""
        return self.weights.norms(len(self.models))

    def score_scales(self) -> Tensor:
        """Return by what a latent's activation is multiplied to give its score, [F]."""
        total = self.decoder_norms().sum(1)
        return total if self.costs is None else total / self.costs

    def to(self, device: torch.device) -> Crosscoder:
        """Return the same crosscoder with its tensors on ``device``."""
        return replace(
            self,
            weights=self.weights.to(device),
            mean=self.mean.to(device),
            scale=self.scale.to(device),
            costs=None if self.costs is None else self.costs.to(device),
        )

    def normalize(self, h: Tensor) -> Tensor:
        """Map raw activations [B, M, D] to normalised space."""
        return (h - self.mean) / self.scale[:, None]

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return the encoder's output before the sparsity rule, [B, F], for x [B, M, D]."""
        return torch.addmm(self.weights.encoder_bias, x.flatten(1), self.weights.encoder.T)

    def encode(self, x: Tensor) -> Tensor:
        """Return latent activations f [B, F] ≥ 0 of normalised activations x [B, M, D]."""
        pre = self.pre_activations(x).relu_()
        return pre.mul_(pre * self.score_scales() > self.threshold)

    def decode(self, f: Tensor) -> Tensor:
        """Return the reconstruction [B, M, D] of latent activations f [B, F]."""
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
    def load(cls, folder: Path | str) -> Crosscoder:
        """Read a crosscoder that :meth:`save` wrote.

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
        tensors = load_file(folder / WEIGHTS)
        return cls(
            models=list(settings["models"]),
            weights=Weights(
                tensors["encoder"],
                tensors["encoder_bias"],
                tensors["decoder"],
                tensors["decoder_bias"],
            ),
            threshold=float(tensors["threshold"]),
            mean=tensors["mean"],
            scale=tensors["scale"],
            k=int(settings["k"]),
            settings=settings,
            costs=tensors.get("costs"),
        )


def initial_weights(latents: int, models: int, width: int, seed: int, norm: float) -> Weights:
    """Draw initial weights: one direction per latent, the same in every model, encoder = decoderᵀ.

    The decoder bias starts at zero, which is the mean in normalised space. Each model's decoder
    direction has length ``norm``.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(latents, width, generator=generator)
    direction = direction / direction.norm(dim=1, keepdim=True) * norm
    decoder = direction.repeat(1, models)
    return Weights(
        encoder=decoder.clone(),
        encoder_bias=torch.zeros(latents),
        decoder=decoder,
        decoder_bias=torch.zeros(models * width),
    )
