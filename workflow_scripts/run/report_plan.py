"""What a run shows: the report's figures with their captions, and the tables that it reads.

The Snakefile uses this module; no step does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.common.artifacts import FitFiles, SeedFiles
from workflow_scripts.run import comparisons
from workflow_scripts.run.paths import PURPOSES, Paths
from workflow_scripts.run.settings import Config


@dataclass(frozen=True)
class Figure:
    """A figure of the report: its name, the section that shows it, and its caption."""

    name: str
    section: str
    caption: str


def figures(config: Config) -> list[Figure]:
    """Return the figures of the report, in order."""
    shown = [figure for name in config.comparisons for figure in _of_comparison(config, name)]
    shares = "Share of each category's live latents that the two models do not share, by layer"
    for pair, layers in comparisons.layer_sweeps(config).items():
        caption = f"{shares}: {', '.join(layers)}."
        shown.append(Figure(f"layer_sweep_{pair}", "carries", caption))
    if comparisons.planted_pairs(config):
        caption = "What every statistic measures, beside what was planted."
        shown.append(Figure("recovery", "sure", caption))
    for name in comparisons.compared_fits(config):
        shown += _of_fit(config, name)
    return shown


def pictures(paths: Paths) -> dict[str, dict[str, str]]:
    """Return the figures of the report as a flag holds them: file, section and caption by name."""
    return {
        figure.name: {
            "png": f"{paths.results}/figures/{figure.name}.png",
            "section": figure.section,
            "caption": figure.caption,
        }
        for figure in figures(paths.config)
    }


def _of_comparison(config: Config, name: str) -> Iterator[Figure]:
    pair = "{} and {}".format(*comparisons.models_of(config, name))
    direct = name in comparisons.direct_comparisons(config)
    if direct:
        caption = "How much better each category's text is predicted, against how far activations"
        caption += f" moved: {pair} ({name})."
        yield Figure(f"two_axes_{name}", "answer" if name in answering(config) else "sure", caption)
        if name in answering(config):
            caption = "What every method says, each against its own null; dots stand out"
            yield Figure(f"witnesses_{name}", "sure", f"{caption}: {pair} ({name}).")
        caption = "Share of each category's live latents that the two models do not share"
        caption += f": {pair} in one crosscoder ({name})."
        yield Figure(f"direct_shares_{name}", "carries", caption)
    caption = "Percent change of each category's share of unique latents, with intervals"
    section = "carries" if direct or len(config.comparisons) > 1 else "answer"
    yield Figure(f"category_changes_{name}", section, f"{caption}: {pair} ({name}).")
    caption = f"Each category's share of the unique latents of either model: {pair} ({name})."
    yield Figure(f"category_shares_{name}", "carries", caption)
    if comparisons.has_scores(config):
        caption = f"Gaps in your own scores against those in likelihood: {pair} ({name})."
        yield Figure(f"behaviour_{name}", "decisions", caption)
    if name in comparisons.patched_comparisons(config):
        caption = "What unique latents cause: patched into the other model, and taken away"
        caption += f": {pair} ({name}). Hollow: the interval holds 0."
        yield Figure(f"cause_{name}", "carries", caption)
    if name in comparisons.difference_comparisons(config):
        caption = "How much of the difference of activations baselines and crosscoder explain"
        yield Figure(f"difference_{name}", "carries", f"{caption}: {pair} ({name}).")
    if name in comparisons.weighed_weights(config):
        caption = "Where the weights differ, without any text, and in how many directions"
        yield Figure(f"weights_{name}", "carries", f"{caption}: {pair} ({name}).")


def _of_fit(config: Config, name: str) -> Iterator[Figure]:
    fit = config.fits[name]
    of = f"of {' and '.join(fit.models)} at layer {fit.layer}"
    at = f"{name}_seed{fit.seeds[0]}"
    edge = "Dots on the frame lie beyond it; grey ones in the dashed region fail the test."
    yield Figure(f"nu_plane_{at}", "crosscoders", f"ν^ε against ν^r of live latents {of}. {edge}")
    yield Figure(f"delta_norm_{at}", "crosscoders", f"Decoder norms {of}: 0.5 is shared.")
    rates = f"Firing rates of unique and shared latents {of}."
    yield Figure(f"firing_rates_{at}", "crosscoders", rates)
    if len(fit.seeds) > 1:
        stability = f"Latents {of} that come back in other seeds."
        yield Figure(f"seed_stability_{name}", "crosscoders", stability)
    if fit.imported is None:
        yield Figure(f"training_curves_{name}", "crosscoders", f"Training of the crosscoder {of}.")


def answering(config: Config) -> list[str]:
    """Return the direct comparison that gives the answer of the run, if it is one."""
    name = comparisons.primary(config)
    return [name] if name in comparisons.direct_comparisons(config) else []


def weighed(paths: Paths) -> dict[str, dict[str, str]]:
    """Return what carries the answering comparison, as a flag of the report holds it."""
    return {
        name: {
            "fit": comparisons.fit_of(paths.config, name),
            "documents": paths.weighed(name)[comparisons.first_seed(paths.config, name)],
            "carriers": paths.weighed(name, "_carriers")[
                comparisons.first_seed(paths.config, name)
            ],
        }
        for name in answering(paths.config)
    }


def naming(config: Config) -> dict[str, str]:
    """Return what tells how far names can be trusted: part of the report to file of a fit."""
    truth = {"truth": "truth"} if comparisons.has_true_categories(config) else {}
    return {"annotators": "summary", "agreement": "agreement"} | truth


def said(paths: Paths) -> dict[str, str]:
    """Return what the answering comparison's models predict and say differently, by flag."""
    found: dict[str, str] = {}
    for name in answering(paths.config):
        if name in comparisons.predicted_comparisons(paths.config):
            files = paths.predictions(name)
            found |= {"predictions": files["labels"], "predicted-tokens": files["tokens"]}
            found |= {"predicted-rows": files["rows"]}
        if name in comparisons.answered_comparisons(paths.config):
            found |= {"answers": paths.answers(name), "answer-rates": paths.answers(name, "csv")}
    return found


def llm_labels(paths: Paths) -> list[str]:
    """Return the file that tells how far an LLM's labels of documents can be trusted, if any."""
    has_any = comparisons.llm_labels_documents(paths.config)
    return [f"{paths.llm_labels}/agreement.json"] if has_any else []


def ledgers(paths: Paths) -> list[str]:
    """Return the ledgers of all calls to an LLM."""
    if paths.config.autointerp.annotator != "llm":
        return []
    fits = comparisons.compared_fits(paths.config)
    of_documents = [f"{Path(file).parent}/ledger.csv" for file in llm_labels(paths)]
    return [*of_documents, *paths.of_seeds("autointerp", fits, "ledger.csv")]


def report_fits(paths: Paths) -> dict[str, FitFiles]:
    """Return the artifacts of each compared fit that the report shows."""
    config = paths.config
    direct = comparisons.direct_comparisons(config)
    mirrored = {comparison.baseline.fit for comparison in direct.values()}
    carriers = {
        (comparisons.fit_of(config, name), seed): Path(path)
        for name in answering(config)
        for seed, path in list(paths.weighed(name, "_contexts").items())[:1]
    }

    def files(name: str, seed: int) -> SeedFiles:
        crosscoder, latents = Path(paths.crosscoder(name, seed)), Path(paths.latents(name, seed))
        annotations, fit = Path(paths.annotations(name, seed)), config.fits[name]
        tables = {table: (annotations / f"{table}.parquet",) for table in PURPOSES}
        named = {part: annotations / f"{file}.json" for part, file in naming(config).items()}
        loss = fit.loss_documents and fit.control is None
        promotes = config.latents.promoted_tokens and name in mirrored
        return paths.labelled_latents(name, seed).model_copy(
            update={
                **tables,
                "clauses": latents / "selection.json",
                "evaluation": crosscoder / "evaluation.json",
                **({"examples": latents / "examples.parquet", **named} if paths.annotated else {}),
                **({"loss": crosscoder / "loss.csv"} if loss else {}),
                **({"carriers": path} if (path := carriers.get((name, seed))) else {}),
                **({"mirrors": latents / "mirrors.parquet"} if name in mirrored else {}),
                **({"promoted": latents / "promoted.parquet"} if promotes else {}),
            }
        )

    return paths.fits(comparisons.compared_fits(config), files)


def published_fits(paths: Paths) -> dict[str, FitFiles]:
    """Return the artifacts of each compared fit that published quantities are set beside."""

    def files(name: str, seed: int) -> SeedFiles:
        crosscoder, latents = Path(paths.crosscoder(name, seed)), Path(paths.latents(name, seed))
        return SeedFiles(
            latents=latents / "latents.parquet",
            selection=latents / "selection.parquet",
            evaluation=crosscoder / "evaluation.json",
            crosscoder=crosscoder / "crosscoder.json",
        )

    return paths.fits(comparisons.compared_fits(paths.config), files)


def recorded_files(paths: Paths) -> list[str]:
    """Return what a run must have made when its provenance is recorded."""
    config, results = paths.config, paths.results
    fits = comparisons.compared_fits(config) if paths.annotated else []
    tables = [f"{file}.json" for part, file in naming(config).items() if part != "annotators"]
    return [
        *paths.links().values(),
        f"{results}/dataset/manifest.json",
        *paths.label_files,
        *llm_labels(paths),
        *(picture["png"] for picture in pictures(paths).values()),
        *paths.of_seeds("autointerp", fits, *tables),
        *(f"{results}/comparison/{n}" for n in ("answer.json", "sensitivity.csv", "weighted.csv")),
    ]
