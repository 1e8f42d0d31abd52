"""The model card of an exported crosscoder: README.md as the Hugging Face hub shows it.

``model_card.md.j2`` beside this file is its template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

import diffscope
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.figures import cards, verdict_table
from workflow_scripts.latents.ownership import owned_by

HERE = Path(__file__).resolve().parent
TO_FILL = """\
# Fill in: an identifier that the hub knows, such as apache-2.0, or a name and a link of your own.
license: other
license_name: to-be-filled-in
license_link: LICENSE
"""
SHOWN = ("variant", "dictionary_size", "k", "tokens", "batch", "learning_rate")
"""Training settings that the card names."""


def model_card(
    run: diffscope.Run,
    fit: diffscope.Fit,
    crosscoder: Crosscoder,
    layout: str,
    contents: Mapping[str, str],
    snippet: str,
) -> str:
    """Return the card; ``contents`` says of each file what it holds, ``snippet`` loads one."""
    latents = fit.latents()
    own = set(fit.models) >= {run.facts["baseline"], run.facts["candidate"]}
    body = (
        cards.environment(HERE)
        .get_template("model_card.md.j2")
        .render(
            title=f"Crosscoder {fit.name} of {' and '.join(fit.models)}",
            models=fit.models,
            fit=fit,
            crosscoder=crosscoder,
            sentences=run.answer if own else [],
            contents=list(contents.items()),
            snippet=snippet,
            evaluation=fit.evaluation,
            unique={m: int(owned_by(latents["unique_to"], m).sum()) for m in fit.models},
            baseline=run.facts["baseline"],
            candidate=run.facts["candidate"],
            lines=verdict_table.first_table(run.changes(), {}, {}).lines if own else [],
            facts=list(facts(run, fit)),
        )
    )
    return f"---\n{front_matter(run, fit, layout)}---\n\n{body}"


def front_matter(run: diffscope.Run, fit: diffscope.Fit, layout: str) -> str:
    """Return the card's YAML: what the hub searches by, and the licence to fill in."""
    described = (run.provenance["models"][model] for model in fit.models)
    bases = [str(model["hub"]) for model in described if model.get("hub")]
    known = {
        "library_name": layout,
        **({"base_model": bases} if bases else {}),
        "tags": ["crosscoder", "model-diffing", "sparse-autoencoder", "interpretability"],
    }
    return TO_FILL + yaml.safe_dump(known, sort_keys=False, allow_unicode=True)


def facts(run: diffscope.Run, fit: diffscope.Fit) -> Iterator[tuple[str, str]]:
    """Yield models, text, settings and versions of the fit."""
    provenance = run.provenance
    models = {name: provenance["models"][name] for name in fit.models}
    yield from cards.model_facts(models)
    if "text" in run.facts:
        yield "text", str(run.facts["text"]["description"])
    settings = run.paths.config.fits[fit.name]
    if settings.imported is None:
        values = settings.model_dump()
        trained = ", ".join(f"{name} {values[name]}" for name in SHOWN)
        yield "training", f"{trained}, seed {fit.seed}"
    else:
        yield "imported from", settings.imported.hub or "a folder"
    yield from cards.version_facts(provenance)
