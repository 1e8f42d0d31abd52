"""What a run compares: direct comparisons, the one that gives the answer, and the null of a fit."""

from __future__ import annotations

from workflow_scripts.common.labellers import LLM, SOURCE, TOPICS, TRUE
from workflow_scripts.comparison.settings import Comparison
from workflow_scripts.dataset.settings import RecordSource
from workflow_scripts.run.settings import Config


def direct_comparisons(config: Config) -> dict[str, Comparison]:
    """Return the comparisons of two models in one crosscoder, by name."""
    return {name: c for name, c in config.comparisons.items() if c.is_direct}


def is_control(config: Config, comparison: str) -> bool:
    """Return whether a comparison's first fit is a control, in which nothing can differ."""
    return config.fits[config.comparisons[comparison].baseline.fit].control is not None


def uncontrolled(config: Config) -> dict[str, Comparison]:
    """Return the direct comparisons that are no control."""
    direct = direct_comparisons(config)
    return {name: c for name, c in direct.items() if not is_control(config, name)}


def primary(config: Config) -> str | None:
    """Return the comparison that gives the answer of the run.

    Where the config names none: the first direct one that is no control and no other's placebo.
    """
    placebos = {comparison.placebo for comparison in config.comparisons.values()}
    usual = (name for name in uncontrolled(config) if name not in placebos)
    return config.comparison.primary or next(usual, None)


def layer_sweeps(config: Config) -> dict[str, dict[str, int]]:
    """Return, by pair of models, the direct comparisons at several layers, each with its layer."""
    pairs: dict[str, dict[str, int]] = {}
    for name, c in uncontrolled(config).items():
        layers = pairs.setdefault(f"{c.baseline.model}_{c.candidate.model}", {})
        layers[name] = config.fits[c.baseline.fit].layer
    return {pair: layers for pair, layers in pairs.items() if len(set(layers.values())) > 1}


def models_of(config: Config, comparison: str) -> tuple[str, str]:
    """Return the models of baseline and candidate."""
    sides = config.comparisons[comparison]
    return sides.baseline.model, sides.candidate.model


def fit_of(config: Config, comparison: str) -> str:
    """Return the name of the fit of a direct comparison."""
    return config.comparisons[comparison].baseline.fit


def first_seed(config: Config, comparison: str) -> int:
    """Return the seed of a direct comparison's first crosscoder."""
    return config.fits[fit_of(config, comparison)].seeds[0]


def compared_fits(config: Config) -> list[str]:
    """Return the fits whose latents some comparison counts, in alphabetic order."""
    sides = [side for c in config.comparisons.values() for side in (c.baseline, c.candidate)]
    return sorted({side.fit for side in sides})


def compared_models(config: Config) -> list[str]:
    """Return the models that some comparison sets side by side, in the order of the config."""
    compared = {model for name in config.comparisons for model in models_of(config, name)}
    return [name for name in config.models if name in compared]


def compared_pairs(config: Config) -> list[tuple[str, str]]:
    """Return the baselines and candidates of all comparisons, each pair once."""
    return list(dict.fromkeys(models_of(config, name) for name in config.comparisons))


def null_fit(config: Config, fit: str) -> str | None:
    """Return the fit that is the null beside ``fit``: its comparison's placebo, or a control."""
    placebos = [
        fit_of(config, c.placebo)
        for c in config.comparisons.values()
        if c.placebo and c.baseline.fit == c.candidate.fit == fit
    ]
    controls = [
        name
        for name, other in config.fits.items()
        if other.control is not None
        and config.fits[fit].control is None
        and other.models == config.fits[fit].models
    ]
    return next(iter(placebos + controls), None)


def difference_comparisons(config: Config) -> list[str]:
    """Return the comparisons for which an autoencoder is fitted on the difference."""
    return [] if config.comparison.difference_tokens == 0 else list(uncontrolled(config))


def predicted_comparisons(config: Config) -> list[str]:
    """Return the comparisons whose models' predictions are compared token by token."""
    return list(uncontrolled(config)) if config.comparison.prediction_documents else []


def answered_comparisons(config: Config) -> list[str]:
    """Return the comparisons whose models answer prompts."""
    return list(uncontrolled(config)) if config.comparison.answer_documents else []


def weighed_weights(config: Config) -> list[str]:
    """Return the comparisons whose models' weights are compared."""
    return [] if config.comparison.weight_changes == "none" else list(uncontrolled(config))


def patched_comparisons(config: Config) -> list[str]:
    """Return the comparisons whose latents are patched from one model into the other."""
    return list(uncontrolled(config)) if config.comparison.cause_documents else []


def has_true_categories(config: Config) -> bool:
    """Return whether some text has a known category."""
    return any(source.kind == "generator" for source in config.text.sources.values())


def llm_labels_documents(config: Config) -> bool:
    """Return whether an LLM labels documents."""
    llm = config.autointerp.llm
    return config.autointerp.annotator == "llm" and llm is not None and llm.documents.sample > 0


def labellers(config: Config) -> list[str]:
    """Return who may label documents, in the order in which they answer where none is named.

    First columns of the data; then known categories; labels that the config gives sources, an
    LLM's, or else the sources' names; and topics.
    """
    records = [s for s in config.text.sources.values() if isinstance(s, RecordSource)]
    columns = dict.fromkeys(column for source in records for column in source.label_columns)
    by_llm = [LLM] if llm_labels_documents(config) else []
    given = any(source.category is not None for source in records)
    return [
        *columns,
        *([TRUE] if has_true_categories(config) else []),
        *([SOURCE, *by_llm] if given else [*by_llm, SOURCE]),
        TOPICS,
    ]


def has_scores(config: Config) -> bool:
    """Return whether the user gives scores of the models by category."""
    return config.comparison.leaderboard is not None


def planted_pairs(config: Config) -> list[tuple[str, str]]:
    """Return the compared pairs (baseline, candidate) of trained models: their truth is known."""
    trained = {name for name, model in config.models.items() if model.organism is not None}
    pairs = [models_of(config, name) for name in config.comparisons]
    return [pair for pair in dict.fromkeys(pairs) if trained.issuperset(pair)]


def taught(config: Config, organism: str) -> dict[str, list[int]]:
    """Return the documents of each category that an organism was taught, and each of its bases."""
    documents: dict[str, list[int]] = {}
    name: str | None = organism
    while name is not None:
        lessons = config.models[name].organism
        assert lessons is not None
        for category, count in lessons.teach.items():
            documents.setdefault(category, []).append(count)
        name = lessons.base
    return documents
