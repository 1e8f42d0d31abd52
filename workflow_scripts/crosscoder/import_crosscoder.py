"""Convert a published crosscoder from the layout of ``dictionary_learning`` to this workflow's.

The layout: ``config.json`` and ``model.safetensors`` with, for M models, width D and F latents,

====================================  ===========================================================
``encoder.weight`` [M, D, F]          ``encoder.bias`` [F]
``decoder.weight`` [M, F, D]          ``decoder.bias`` [M, D]
``code_normalization_id``             what a latent's score is multiplied by: 1 Σ_m ‖d^m‖,
                                      2 ‖(d^1, …, d^M)‖, 3 a weighted sum of both, 4 nothing
``k``, ``threshold``                  BatchTopK only: a latent fires where its score exceeds it
``activation_mean`` [M, D],           optional: it reads x' = (h − mean)·scale (NaN: x' = h)
``activation_global_scale`` [M]
====================================  ===========================================================

The converted one reads x = (h − μ)/σ with the run's normaliser. With x' = (h − μ')/σ'::

    W^m = W'^m σ^m/σ'^m        b = b' + Σ_m W'^m (μ^m − μ'^m)/σ'^m
    d^m = d'^m σ'^m/σ^m        b_dec^m = (σ'^m b'_dec^m + μ'^m − μ^m)/σ^m

``costs`` keep the scores, hence what fires, as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import set_threads
from workflow_scripts.common.precision import hasten_products
from workflow_scripts.common.provenance import provenance
from workflow_scripts.crosscoder.codes import encode
from workflow_scripts.crosscoder.model import Crosscoder, Weights
from workflow_scripts.crosscoder.settings import Imported
from workflow_scripts.models.download import fetch

CONFIG, TENSORS = "config.json", "model.safetensors"
COUNTED_ROWS = 20_000  # on which the L0 of an L1 crosscoder is measured
ENCODER, DECODER = "encoder.weight", "decoder.weight"
WANTED = (ENCODER, DECODER, "encoder.bias", "decoder.bias")
FVE_NAMES = ("fve", "frac_variance_explained", "fraction_variance_explained")
BLOCK = 2048  # latents that are converted at once
SUM_OF_NORMS, JOINT_NORM, MIXED, NOTHING = 1, 2, 3, 4


@dataclass(frozen=True)
class Published:
    """A crosscoder as it was published: M models, width D, F latents."""

    path: Path
    shape: tuple[int, int, int]
    small: Mapping[str, Tensor]
    """all tensors but the weights, which are read a model at a time"""
    config: Mapping[str, object]

    @property
    def variant(self) -> str:
        """The sparsity rule it was fitted with."""
        return "batch_topk" if "threshold" in self.small else "l1"

    def blocks(self, name: str, model: int) -> Iterator[tuple[slice, Float64[Tensor, "n D"]]]:
        """Yield a model's weights in blocks of latents, which alone are held in float64."""
        with safe_open(self.path, framework="pt") as file:
            weights = file.get_slice(name)[model]
        by_latent = weights if name == DECODER else weights.T
        for first in range(0, self.shape[2], BLOCK):
            block = slice(first, first + BLOCK)
            yield block, by_latent[block].double()

    def score_scales(self, norms: Float64[Tensor, "M F"]) -> Float64[Tensor, " F"]:
        """Return by what a latent's activation is multiplied to give its score.

        ``norms`` are those of its decoder directions as published.

        Raises
        ------
        UserError
            If each model has a score of its own, which a dictionary of ours cannot have.
        """
        kind = int(self.small.get("code_normalization_id", torch.tensor(SUM_OF_NORMS)))
        total, joint = norms.sum(0), norms.square().sum(0).sqrt()
        if kind == SUM_OF_NORMS:
            return total
        if kind == JOINT_NORM:
            return joint
        if kind == MIXED:
            parts = [
                self._number(f"code_normalization_alpha_{name}", default)
                for name, default in (("sae", 1.0), ("cc", 0.1))
            ]
            return parts[0] * joint + parts[1] * total
        if kind == NOTHING:
            return torch.ones_like(total)
        raise cli.UserError(
            f"the crosscoder's code normalisation {kind} scores each model apart: only one score "
            "per latent can be imported"
        )

    def _number(self, name: str, default: float) -> float:
        value = self.config.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    def statistics(self) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M 1"]]:
        """Return μ' and σ' of the activations that it reads, in float64."""
        models, width, _ = self.shape
        mean = self.small.get("activation_mean")
        if mean is None or bool(torch.isnan(mean).any()):
            return torch.zeros(models, width).double(), torch.ones(models, 1).double()
        if "activation_global_scale" in self.small:
            scale = self.small["activation_global_scale"].double()
        else:
            rms = self.small["activation_std"].double().square().sum(-1).sqrt()
            scale = self.small.get("target_rms", torch.tensor(1.0)).double() / rms
        return mean.double(), 1 / scale.reshape(models, 1)


def open_published(source: Imported) -> Path:
    """Return the folder of a published crosscoder, the hub's fetched where it is missing.

    Raises
    ------
    UserError
        If there is no source, or the hub does not give it.
    """
    if source.path is not None:
        return Path(source.path)
    if source.hub is None or source.revision is None:
        raise cli.UserError("the crosscoder has no source: give a path, or hub and revision")
    return fetch(source.hub, source.revision, (CONFIG, TENSORS))


def read_published(folder: Path) -> Published:
    """Read a folder of the layout, of its weights the shapes alone.

    Raises
    ------
    UserError
        If files or tensors are missing, damaged or of other shapes.
    """
    path = folder / TENSORS
    if not path.is_file():
        pickled = any(folder.glob("*.pt"))
        content = "only pickled weights (*.pt), which may run code" if pickled else f"no {TENSORS}"
        raise cli.UserError(f"{folder} has {content}: save the crosscoder as {TENSORS}")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
            small = {
                name: file.get_tensor(name) for name in shapes if name not in (ENCODER, DECODER)
            }
    except SafetensorError as error:
        raise cli.UserError(f"{path} is damaged ({error}): fetch it again") from None
    for name in WANTED:
        if name not in shapes:
            raise cli.UserError(
                f"{path} has no tensor {name}: this is no crosscoder of dictionary_learning"
            )
    models, width, latents = _three(shapes, path)
    expected = ((models, width, latents), (models, latents, width), (latents,), (models, width))
    for name, shape in zip(WANTED, expected, strict=True):
        if shapes[name] != shape:
            raise cli.UserError(
                f"{path}: {name} is {list(shapes[name])}, not {list(shape)}: models of "
                "different widths cannot be imported"
            )
    config = files.read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    return Published(path, (models, width, latents), small, config)


def _three(shapes: Mapping[str, tuple[int, ...]], path: Path) -> tuple[int, int, int]:
    shape = shapes[ENCODER]
    if len(shape) != 3:
        raise cli.UserError(
            f"{path}: {ENCODER} is {list(shape)}, not [models, width, latents]: this is no "
            "crosscoder of dictionary_learning"
        )
    return shape[0], shape[1], shape[2]


def converted(published: Published, store: ActivationStore) -> Crosscoder:
    """Return the crosscoder in the normalised space of a store, with the same scores.

    Raises
    ------
    UserError
        If the store has other models or another width.
    """
    models, width, latents = published.shape
    if (models, width) != (len(store.models), store.width):
        raise cli.UserError(
            f"the crosscoder has {models} models of width {width}, the fit {len(store.models)} of "
            f"width {store.width}: name the models that it was fitted on"
        )
    old_mean, old_scale = published.statistics()
    mean, scales = (torch.from_numpy(values) for values in store.normalization())
    ratio = (scales[:, None] / old_scale).flatten().tolist()
    shift, small = (mean - old_mean) / old_scale, published.small
    encoder = torch.empty(latents, models, width)
    bias = small["encoder.bias"].double()
    for m in range(models):
        for block, w in published.blocks(ENCODER, m):
            bias[block] += w @ shift[m]
            encoder[block, m] = w.mul(ratio[m]).float()
    decoder, norms = torch.empty(latents, models, width), torch.empty(models, latents).double()
    for m in range(models):
        for block, w in published.blocks(DECODER, m):
            norms[m, block] = torch.linalg.vector_norm(w, dim=1)
            decoder[block, m] = w.div(ratio[m]).float()
    b_dec = (old_scale * small["decoder.bias"].double() + old_mean - mean) / scales[:, None]
    weights = Weights(
        encoder.flatten(1), bias.float(), decoder.flatten(1), b_dec.flatten().float(), models
    )
    scores = published.score_scales(norms)
    ours = (norms / torch.tensor(ratio).double()[:, None]).sum(0)
    costs = torch.where((scores > 0) & (ours > 0), ours / scores, 1.0)  # 0: it writes nothing
    threshold = small.get("threshold")
    return Crosscoder(
        models=list(store.models),
        weights=weights,
        threshold=0.0 if threshold is None else max(0.0, float(threshold)),
        mean=mean.float(),
        scale=scales.float(),
        k=int(small["k"]) if "k" in small else 0,
        settings={},
        costs=costs.float(),
    )


def mean_active(crosscoder: Crosscoder, store: ActivationStore) -> float:
    """Return the number of latents active per token on some of the calibration split."""
    rows = store.rows("calibration")[:COUNTED_ROWS]
    active = 0
    for first in range(0, len(rows), 1024):
        x = torch.from_numpy(store.read(rows[first : first + 1024]))
        active += encode(crosscoder, x).values.numel()
    return active / max(1, len(rows))


def import_crosscoder(
    inputs: StoreInputs, source: Imported, output_dir: Path, threads: int | None = None
) -> None:
    """Write a published crosscoder as one of ours, in the normalised space of a store.

    Parameters
    ----------
    output_dir
        folder to write crosscoder.safetensors and crosscoder.json to
    threads
        threads of torch; none: as many as the process may use
    """
    set_threads(threads)
    hasten_products(torch.device("cpu"))
    folder = open_published(source)
    with torch.no_grad():
        crosscoder = imported(read_published(folder), inputs.open())
    crosscoder.settings["published_fve"] = source.fve or recorded_fve(folder)
    crosscoder.settings["provenance"] = provenance(__file__)
    crosscoder.save(output_dir)


def recorded_fve(folder: Path) -> float | None:
    """Return the fraction of variance explained that a published config tells, mean of models."""
    config = files.read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    told = next((config[name] for name in FVE_NAMES if name in config), None)
    values = list(told.values()) if isinstance(told, dict) else [told]
    known = [float(value) for value in values if isinstance(value, int | float)]
    return sum(known) / len(known) if len(known) == len(values) > 0 else None


def imported(published: Published, store: ActivationStore) -> Crosscoder:
    """Return a published crosscoder for the models of a store, with its settings.

    k is the published one; where there is none, the mean number of active latents.
    """
    crosscoder = converted(published, store)
    if crosscoder.k == 0:
        crosscoder.k = max(1, round(mean_active(crosscoder, store)))
    crosscoder.settings = {
        "training": {"variant": published.variant, "k": crosscoder.k},
        "layer": store.layer,
        "latents": crosscoder.latents,
        "width": crosscoder.width,
        "dropped": store.dropped("fit"),
        "imported": {key: published.config.get(key) for key in sorted(published.config)},
    }
    return crosscoder


main = cli.command(import_crosscoder)


if __name__ == "__main__":
    raise SystemExit(main())
