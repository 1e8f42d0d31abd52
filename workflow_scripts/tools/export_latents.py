"""Write latents with contexts and explanations as JSON, in the words of Neuronpedia's exports.

``python -m workflow_scripts.tools.export_latents RUN FIT --to FOLDER`` writes a file per batch of
latents, ``batch-<number>.json``; docs/share.md describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import diffscope
from diffscope.latents import annotators, contexts_of, names_of
from workflow_scripts.common import cli, files
from workflow_scripts.common.labellers import LEXICAL
from workflow_scripts.common.settings import Count
from workflow_scripts.figures.category_rows import Row, rows_of

FORMAT, VERSION = "diffscope-latents", 1
Json = dict[str, object]


def batches(
    run: diffscope.Run, fit: diffscope.Fit, size: int, contexts: int
) -> Iterator[tuple[Json, list[Json]]]:
    """Yield where latents are from, and those of a batch that have contexts, maybe fewer."""
    rows = rows_of(fit.latents())
    names = [rows_of(names_of(fit.files, name)) for name in annotators(fit.files)]
    origin: Json = {
        "format": FORMAT,
        "format_version": VERSION,
        "run": run.name,
        "fit": fit.name,
        "seed": fit.seed,
        "models": list(fit.models),
        "modelId": fit.models[-1],
        "layer": f"{fit.layer - 1}-{run.name}-{fit.name}-seed{fit.seed}",
    }
    explanations: dict[int, list[Json]] = {}
    for row in (row for table in names for row in table):
        if row.text("explanation"):
            explanations.setdefault(row.count("latent"), []).append(explanation(row))
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        shown = contexts_of(fit.files, [row.count("latent") for row in part])
        features = [
            feature(row, shown[n][:contexts], explanations.get(n, []))
            for row in part
            if (n := row.count("latent")) in shown
        ]
        if features:
            yield origin, features


def feature(row: Row, contexts: tuple[diffscope.Context, ...], explanations: list[Json]) -> Json:
    """Return a latent: its number, how often and how strongly it fires, contexts, explanations."""
    known = {name: value for name, value in row.values.items() if isinstance(value, float)}
    return {
        "index": str(row.count("latent")),
        "maxActApprox": row.number("activation_max"),
        "frac_nonzero": row.number("firing_rate"),
        "unique_to": row.text("unique_to"),
        "measured": {str(n): files.null_if_nan(v) for n, v in known.items() if not math.isinf(v)},
        "explanations": explanations,
        "activations": [activation(context) for context in contexts],
    }


def explanation(row: Row) -> Json:
    """Return what an annotator says of a latent."""
    by = row.text("named_by")
    return {
        "description": row.text("explanation"),
        "explanationModelName": by,
        "typeName": "counted words" if by == LEXICAL else "LLM",
        "category": row.text("category"),
        "auroc": files.null_if_nan(row.number("auroc")),
    }


def activation(context: diffscope.Context) -> Json:
    """Return a context with the activation of each piece of text."""
    values = [float(f"{value:.6g}") for value in context.activations]
    return {
        "tokens": list(context.pieces),
        "values": values,
        "maxValue": max(values),
        "maxValueTokenIndex": values.index(max(values)),
        "minValue": min(values),
        "dataIndex": str(context.document),
        "split": context.split,
    }


def export_latents(
    run: Path,
    fit: str,
    /,
    to: Path,
    seed: int | None = None,
    batch: Count = 100,
    contexts: Count = 20,
) -> None:
    """Write the latents of a fit that have contexts as JSON, a file per batch.

    Parameters
    ----------
    run
        folder of the run, results/<run>
    fit
        name of the fit
    to
        folder to write, which must not exist
    seed
        seed of the fit; none: the first
    batch
        live latents of a file, of which those with contexts are written
    contexts
        contexts of each latent, the strongest first

    Raises
    ------
    UserError
        If the folder exists, or there is no such run or fit.
    """
    if to.exists():
        raise cli.UserError(f"{to} exists: name a new folder")
    opened = diffscope.open_run(run)
    latents = 0
    parts = batches(opened, opened.fit(fit, seed), batch, contexts)
    for number, (origin, features) in enumerate(parts):
        text = json.dumps({**origin, "features": features}, ensure_ascii=False, allow_nan=False)
        files.write_text(to / f"batch-{number}.json", text + "\n")
        latents += len(features)
    print(f"{to}: {latents} latents")


main = cli.command(export_latents)


if __name__ == "__main__":
    raise SystemExit(main())
