"""Write a crosscoder for others, with a model card: ``… tools.export RUN FIT --to FOLDER``.

Weights are written as safetensors, never pickled. docs/share.md describes the layouts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import diffscope
from workflow_scripts.activations.store import Normalizer
from workflow_scripts.common import cli, files
from workflow_scripts.crosscoder import import_crosscoder
from workflow_scripts.crosscoder.model import SETTINGS, WEIGHTS, Crosscoder
from workflow_scripts.tools import layouts, model_card

Layout = Literal["diffscope", "dictionary_learning", "saelens"]
SAE_CONFIG, SAE_WEIGHTS = "cfg.json", "sae_weights.safetensors"
SAE_FORMAT = "6.0.0"
"""The first version of SAELens that reads a config of this form; it takes others for older ones."""
LOADERS = {
    "diffscope": """\
from workflow_scripts.crosscoder.model import Crosscoder
crosscoder = Crosscoder.load(".")
f = crosscoder.encode(crosscoder.normalize(h))  # h: [tokens, models, width]""",
    "dictionary_learning": """\
from dictionary_learning.dictionary import {kind}
crosscoder = {kind}.from_pretrained(".", from_hub=True)
f = crosscoder.encode(h)  # h: [tokens, models, width]""",
    "saelens": """\
from sae_lens import SAE
sae = SAE.load_from_disk("{model}")
f = sae.encode(h)  # h: [tokens, width]""",
}


def export(
    run: Path,
    fit: str,
    /,
    to: Path,
    layout: Layout = "diffscope",
    seed: int | None = None,
    folded: bool = False,
) -> None:
    """Write a fit's crosscoder and its model card into a new folder.

    Parameters
    ----------
    run
        folder of the run, results/<run>
    fit
        name of the fit
    to
        folder to write, which must not exist
    layout
        diffscope; dictionary_learning; or saelens: a sparse autoencoder per model
    seed
        seed of the fit; none: the first
    folded
        fold the normaliser into the weights, so that they read raw activations; saelens always does

    Raises
    ------
    UserError
        If the folder exists, or there is no such run or fit.
    """
    if to.exists():
        raise cli.UserError(f"{to} exists: name a new folder")
    opened = diffscope.open_run(run)
    chosen = opened.fit(fit, seed)
    crosscoder = chosen.crosscoder()
    if layout == "diffscope":
        contents = dict(write_ours(chosen, crosscoder, to, folded))
    elif layout == "dictionary_learning":
        contents = dict(write_published(chosen, crosscoder, to, folded))
    else:
        contents = dict(write_saes(opened, chosen, crosscoder, to))
    kind = "CrossCoder" if crosscoder.variant == "l1" else "BatchTopKCrossCoder"
    snippet = LOADERS[layout].format(kind=kind, model=crosscoder.models[0])
    files.write_text(
        to / "README.md",
        model_card.model_card(opened, chosen, crosscoder, layout, contents, snippet),
    )
    print(f"{to}: {', '.join([*contents, 'README.md'])}")


def write_ours(
    fit: diffscope.Fit, crosscoder: Crosscoder, to: Path, folded: bool
) -> Iterator[tuple[str, str]]:
    """Write this workflow's layout; yield what each file holds."""
    if folded:
        layouts.folded(crosscoder).save(to)
    else:
        for name in (WEIGHTS, SETTINGS):
            with files.atomic_path(to / name) as temporary:
                shutil.copyfile(fit.folder / name, temporary)
    reads = "raw activations" if folded else "activations, normalised by its `mean` and `scale`"
    yield WEIGHTS, f"the weights; they read {reads}"
    yield SETTINGS, "models, training settings and where it came from"


def write_published(
    fit: diffscope.Fit, crosscoder: Crosscoder, to: Path, folded: bool
) -> Iterator[tuple[str, str]]:
    """Write the layout of ``dictionary_learning``; yield what each file holds."""
    if folded:
        tensors, config = layouts.dictionary_learning(layouts.folded(crosscoder), None)
    else:
        tensors, config = layouts.dictionary_learning(crosscoder, statistics(fit))
    write_tensors(to / import_crosscoder.TENSORS, tensors)
    files.write_json(to / import_crosscoder.CONFIG, config)
    scaled = config["code_normalization"] == "NONE"
    yield (
        import_crosscoder.TENSORS,
        "the weights; they read raw activations"
        + ("" if folded else ", which the class normalises")
        + ("; an activation is the latent's score" if scaled else ""),
    )
    yield import_crosscoder.CONFIG, "what the class is made with"


def write_saes(
    run: diffscope.Run, fit: diffscope.Fit, crosscoder: Crosscoder, to: Path
) -> Iterator[tuple[str, str]]:
    """Write a view of each model as SAELens loads it; yield what each file holds."""
    text = run.paths.config.text
    for place, model in enumerate(crosscoder.models):
        write_tensors(to / model / SAE_WEIGHTS, layouts.sae_of_model(crosscoder, place))
        described = run.provenance["models"][model]
        metadata = {
            "model_name": described.get("hub") or model,
            "model_revision": described.get("revision"),
            "hook_name": f"blocks.{fit.layer - 1}.hook_resid_post",
            "context_size": text.context_length,
            "prepend_bos": True,
            "sae_lens_version": SAE_FORMAT,
            "diffscope_fit": f"{run.name}/{fit.name}/seed{fit.seed}",
        }
        files.write_json(
            to / model / SAE_CONFIG,
            {
                "architecture": "jumprelu",
                "d_in": crosscoder.width,
                "d_sae": crosscoder.latents,
                "dtype": "float32",
                "device": "cpu",
                "apply_b_dec_to_input": False,
                "normalize_activations": "none",
                "reshape_activations": "none",
                "metadata": metadata,
            },
        )
        yield (
            f"{model}/{SAE_WEIGHTS}",
            f"the latents as {model} alone shows them, the other models taken to be at their mean",
        )
        yield f"{model}/{SAE_CONFIG}", "what SAELens reads with it"


def statistics(fit: diffscope.Fit) -> tuple[Tensor, Tensor]:
    """Return the means [M, D] and scales [M] by which a fit normalises, in float64."""
    paths = (Path(fit.paths.normalizer(model, fit.layer)) for model in fit.models)
    read = [Normalizer.read(path) for path in paths]
    means = torch.from_numpy(np.stack([normalizer.mean for normalizer in read]))
    return means, torch.tensor([normalizer.scale for normalizer in read], dtype=torch.float64)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    with files.atomic_path(path) as temporary:
        save_file(dict(tensors), temporary)


main = cli.command(export)


if __name__ == "__main__":
    raise SystemExit(main())
