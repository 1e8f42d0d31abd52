"""What comparisons, figures and the report read: their files and flags. No rules."""

from collections.abc import Iterator


def direct_name(comparison: str) -> str:
    """Return the name of the fit of a direct comparison."""
    return SETTINGS.comparisons[comparison].baseline.fit


def direct_fit(comparison: str):
    """Return the fit of a direct comparison."""
    return SETTINGS.fits[direct_name(comparison)]


def difference_flags(comparison: str) -> list[str]:
    """Return the flags by which a step finds a direct comparison's difference of activations."""
    pair = direct_pair(comparison)
    return [*fit_flags(direct_name(comparison)), "--difference", *pair]


def difference_checkpoint(comparison: str) -> str:
    """Return the checkpoint of a direct comparison's sparse autoencoder."""
    folder = f"{RESULTS}/crosscoder/difference/{comparison}"
    return resumable(folder, difference_flags(comparison), difference_training(comparison))


def difference_training(comparison: str) -> list[str]:
    """Return the flags with the training settings of that autoencoder: the crosscoder's.

    With one "model" there is nothing to share.
    """
    tokens = SETTINGS.comparison.difference_tokens
    own = [] if tokens is None else [f"--tokens={tokens}"]
    return [*training_flags(direct_name(comparison)), "--shared-share=0", *own]


def fits_and_seeds(names: list[str]) -> list[str]:
    """Return ``<fit>/seed<S>`` for each seed of the named fits."""
    return [f"{name}/seed{seed}" for name in names for seed in SETTINGS.fits[name].seeds]


def seed_outputs(name: str, stage: str, file: str) -> list[str]:
    """Return a file of a stage for each seed of a fit."""
    return [f"{RESULTS}/{stage}/{at}/{file}" for at in fits_and_seeds([name])]


def match_flags(name: str) -> list[str]:
    """Return the flags with each seed's crosscoder and selection."""
    return [
        flag
        for seed, at in zip(SETTINGS.fits[name].seeds, fits_and_seeds([name]), strict=True)
        for flag in (
            f"--crosscoder={seed}={RESULTS}/crosscoder/{at}",
            f"--selection={seed}={RESULTS}/latents/{at}/selection.parquet",
        )
    ]


def compared_files(names: list[str], *kinds: str) -> dict[str, dict[str, object]]:
    """Return the artifacts of each compared fit, by seed; ``kinds`` are the annotators' tables."""
    return {
        name: {
            "models": SETTINGS.fits[name].models,
            "seeds": {seed: seed_files(name, seed, *kinds) for seed in SETTINGS.fits[name].seeds},
        }
        for name in names
    }


def seed_files(name: str, seed: int, *kinds: str) -> dict[str, object]:
    """Return the artifacts of one crosscoder that comparisons and the report read."""
    latents = f"{RESULTS}/latents/{name}/seed{seed}"
    tables = f"{RESULTS}/autointerp/{name}/seed{seed}"
    return {
        "latents": f"{latents}/latents.parquet",
        "selection": f"{latents}/selection.parquet",
        **({"examples": f"{latents}/examples.parquet"} if ANNOTATED else {}),
        **{kind: [f"{tables}/{kind}.parquet"] for kind in kinds},
    }


def direct_comparisons() -> dict[str, object]:
    """Return the comparisons of two models in one crosscoder."""
    pairs = SETTINGS.comparisons.items()
    return {
        name: c
        for name, c in pairs
        if c.baseline.fit == c.candidate.fit
        and c.baseline.model != c.candidate.model
        and c.against is None
    }


def primary_flag() -> list[str]:
    """Return the flag that names the comparison that answers.

    Where the config names none: the first direct one that is no control and nobody's placebo.
    """
    placebos = {comparison.placebo for comparison in SETTINGS.comparisons.values()}
    usual = [
        name
        for name, comparison in direct_comparisons().items()
        if name not in placebos and SETTINGS.fits[comparison.baseline.fit].control is None
    ]
    chosen = SETTINGS.comparison.primary or next(iter(usual), None)
    return [f"--primary={chosen}"] if chosen else []


def sweeps() -> dict[str, dict[str, int]]:
    """Return, by pair of models, the direct comparisons at more than one layer."""
    found: dict[str, dict[str, int]] = {}
    for name, c in direct_comparisons().items():
        fit = SETTINGS.fits[c.baseline.fit]
        if fit.control is None:
            pair = f"{c.baseline.model}_{c.candidate.model}"
            found.setdefault(pair, {})[name] = fit.layer
    return {pair: layers for pair, layers in found.items() if len(set(layers.values())) > 1}


def comparison_seed(name: str) -> str:
    """Return ``<fit>/seed<S>`` of a direct comparison's first crosscoder."""
    return f"{direct_name(name)}/seed{direct_fit(name).seeds[0]}"


def cause_inputs(name: str) -> dict[str, object]:
    """Return what the steps read that patch a direct comparison's models."""
    comparison = SETTINGS.comparisons[name]
    fit, at = SETTINGS.fits[comparison.baseline.fit], comparison_seed(name)
    return {
        "models": [manifest(model) for model in fit.models],
        "crosscoder": f"{RESULTS}/crosscoder/{at}/crosscoder.safetensors",
        "normalizers": [normalizer(model, fit.layer) for model in fit.models],
        "tokens": TOKEN_SHARDS,
    }


def direct_pair(name: str) -> tuple[str, str]:
    """Return baseline and candidate of a comparison."""
    comparison = SETTINGS.comparisons[name]
    return comparison.baseline.model, comparison.candidate.model


def ablated_fit(name: str) -> dict[str, dict[str, object]]:
    """Return the artifacts of a direct comparison's first crosscoder."""
    fit = SETTINGS.comparisons[name].baseline.fit
    seed = SETTINGS.fits[fit].seeds[0]
    files = seed_files(fit, seed, *LABELS)
    return {fit: {"models": SETTINGS.fits[fit].models, "seeds": {seed: files}}}


def labelled_files(name: str) -> list[str]:
    """Return the same artifacts as files."""
    at = comparison_seed(name)
    tables = ["latents", "selection", *(["examples"] if ANNOTATED else [])]
    labels = [f"{RESULTS}/autointerp/{at}/{name}.parquet" for name in LABELS]
    return [*(f"{RESULTS}/latents/{at}/{table}.parquet" for table in tables), *labels]


def named_models(name: str) -> list[str]:
    """Return the flags with the models of the fit of a direct comparison."""
    models = SETTINGS.fits[SETTINGS.comparisons[name].baseline.fit].models
    return [f"--model={model}={manifest(model)}" for model in models]


def patched_models(name: str) -> list[str]:
    """Return the flags with the two models of a direct comparison, source first."""
    sides = dict(zip(("source", "target"), direct_pair(name), strict=True))
    return [f"--{side}={model}={manifest(model)}" for side, model in sides.items()]


def scored(name: str, table: str) -> str:
    """Return a table of the latents stage of a direct comparison's first crosscoder."""
    return f"{RESULTS}/latents/{comparison_seed(name)}/{table}.parquet"


def cause_flags(name: str) -> list[str]:
    """Return the flags of the steps that patch a direct comparison's models."""
    crosscoder = f"--crosscoder={RESULTS}/crosscoder/{comparison_seed(name)}"
    documents = SETTINGS.comparison.cause_documents
    return [crosscoder, *patching_flags(direct_name(name), documents)]


def compared_models() -> list[str]:
    """Return the models that some comparison sets side by side, in the order of the config."""
    sides = [side for c in SETTINGS.comparisons.values() for side in (c.baseline, c.candidate)]
    return [name for name in SETTINGS.models if any(side.model == name for side in sides)]


def null_latents(name: str) -> list[str]:
    """Return the latents of the null beside a fit: its comparison's placebo, or a control fit."""
    comparisons = SETTINGS.comparisons
    beside = [
        comparisons[c.placebo].baseline.fit
        for c in comparisons.values()
        if c.placebo and c.baseline.fit == c.candidate.fit == name
    ]
    fit = SETTINGS.fits[name]
    beside += [
        other
        for other, control in SETTINGS.fits.items()
        if control.control is not None and fit.control is None and control.models == fit.models
    ]
    return [
        f"{RESULTS}/latents/{other}/seed{SETTINGS.fits[other].seeds[0]}/latents.parquet"
        for other in beside[:1]
    ]


def compared_inputs(stage: str, *tables: str) -> list[str]:
    """Return tables of a stage for all compared fits and seeds."""
    return [
        f"{RESULTS}/{stage}/{at}/{table}.parquet"
        for at in fits_and_seeds(COMPARED)
        for table in tables
    ]


NAMING = {"annotators": "summary", "agreement": "agreement"}
NAMING |= {"truth": "truth"} if KNOWN_TEXT else {}
"""Part of the report to the file that tells it, in the folder of a fit's annotations."""


def report_fits(names: list[str]) -> dict[str, dict[str, object]]:
    """Return the artifacts of each fit that the report shows."""
    fits = compared_files(names, "labels", "explanations", "scores")
    for name, fit in fits.items():
        fit["layer"] = SETTINGS.fits[name].layer
        for seed, files in fit["seeds"].items():
            files["clauses"] = f"{RESULTS}/latents/{name}/seed{seed}/selection.json"
            if ANNOTATED:
                named = f"{RESULTS}/autointerp/{name}/seed{seed}"
                files |= {part: f"{named}/{file}.json" for part, file in NAMING.items()}
            files["evaluation"] = f"{RESULTS}/crosscoder/{name}/seed{seed}/evaluation.json"
            if SETTINGS.fits[name].loss_documents and SETTINGS.fits[name].control is None:
                files["loss"] = f"{RESULTS}/crosscoder/{name}/seed{seed}/loss.csv"
            if name in {c.baseline.fit for c in direct_comparisons().values()}:
                files["mirrors"] = f"{RESULTS}/latents/{name}/seed{seed}/mirrors.parquet"
    return fits


def report_files(names: list[str]) -> Iterator[str]:
    """Yield the artifacts of the fits that the report shows."""
    for fit in report_fits(names).values():
        for files in fit["seeds"].values():
            for value in files.values():
                yield from [value] if isinstance(value, str) else value


def report_figures() -> list[dict[str, str]]:
    """Return the figures of the report in order: id, file, caption and section."""
    found = []

    def add(name: str, section: str, caption: str) -> None:
        png = f"{RESULTS}/figures/{name}.png"
        found.append({"id": name, "png": png, "caption": caption, "section": section})

    for name, comparison in SETTINGS.comparisons.items():
        pair = f"{comparison.baseline.model} and {comparison.candidate.model}"
        direct = name in direct_comparisons()
        if direct:
            told = "Share of each category's live latents that the two models do not share"
            add(f"direct_shares_{name}", "answer", f"{told}: {pair} in one crosscoder ({name}).")
        told = "Percent change of each category's share of unique latents, with intervals"
        section = "categories" if direct or len(SETTINGS.comparisons) > 1 else "answer"
        alone = " Counts alone, which are not the verdict here." if direct else ""
        add(f"category_changes_{name}", section, f"{told}: {pair} ({name}).{alone}")
        told = "Each category's share of the unique latents of either model"
        add(f"category_shares_{name}", "categories", f"{told}: {pair} ({name}).")
        if direct and KNOWN_SCORES:
            told = "Gaps in score against shifts of latents"
            add(f"behaviour_{name}", "behaviour", f"{told}: {pair} ({name}).")
        controlled = SETTINGS.fits[comparison.baseline.fit].control is not None
        if direct and SETTINGS.comparison.cause_documents and not controlled:
            told = "What unique latents cause: patched into the other model, and taken away"
            hollow = "Hollow: the interval holds 0."
            add(f"cause_{name}", "cause", f"{told}: {pair} ({name}). {hollow}")
        if direct and SETTINGS.comparison.difference_tokens != 0 and not controlled:
            told = "How much of the difference of activations baselines and crosscoder explain"
            add(f"difference_{name}", "cause", f"{told}: {pair} ({name}).")
    for pair, layers in sweeps().items():
        told = "Share of each category's live latents that the two models do not share, by layer"
        add(f"layer_sweep_{pair}", "categories", f"{told}: {', '.join(layers)}.")
    if PLANTED_PAIRS:
        told = "What every statistic measures, beside what was planted"
        add("recovery", "recovery", f"{told}.")
    for name in COMPARED:
        fit = SETTINGS.fits[name]
        of = f"of {' and '.join(fit.models)} at layer {fit.layer}"
        at = f"{name}_seed{fit.seeds[0]}"
        edge = "Dots on the frame lie beyond it; grey ones in the dashed region fail the test."
        add(f"nu_plane_{at}", "latents", f"ν^ε against ν^r of live latents {of}. {edge}")
        add(f"delta_norm_{at}", "latents", f"Decoder norms {of}: 0.5 is shared.")
        add(f"firing_rates_{at}", "latents", f"Firing rates of unique and shared latents {of}.")
        if len(fit.seeds) > 1:
            add(f"seed_stability_{name}", "latents", f"Latents {of} that come back in other seeds.")
        if name in IMPORTED:
            continue
        add(f"training_curves_{name}", "training", f"Training of the crosscoder {of}.")
    return found


def caption(wildcards, output) -> str:
    """Return the caption of a figure."""
    told = {figure["png"]: figure["caption"] for figure in report_figures()}
    return told.get(output.png, "")


def run_links() -> dict[str, str]:
    """Return the links in the run's folder to what lies in the store."""
    documents = [f"{documents}.parquet" for documents in DOCUMENTS]
    text = {f"{RESULTS}/dataset/documents/{Path(file).name}": file for file in documents}
    tokens = {f"{RESULTS}/dataset/tokens/{Path(file).name}": file for file in TOKEN_SHARDS}
    models = {f"{RESULTS}/models/{name}/model.json": manifest(name) for name in SETTINGS.models}
    dumps = {
        f"{RESULTS}/activations/{model}/layer{fit.layer}/{Path(file).name}": file
        for fit in SETTINGS.fits.values()
        for model in fit.models
        for file in dump_files(model, fit.layer)
    }
    return {
        **text,
        **tokens,
        **models,
        **dumps,
    }


def measured_fits() -> dict[str, dict[str, object]]:
    """Return the artifacts of each compared crosscoder that published quantities are set beside."""
    return {
        name: {
            "models": SETTINGS.fits[name].models,
            "seeds": {
                seed: {
                    "latents": f"{RESULTS}/latents/{name}/seed{seed}/latents.parquet",
                    "selection": f"{RESULTS}/latents/{name}/seed{seed}/selection.parquet",
                    "evaluation": f"{RESULTS}/crosscoder/{name}/seed{seed}/evaluation.json",
                    "crosscoder": f"{RESULTS}/crosscoder/{name}/seed{seed}/crosscoder.json",
                }
                for seed in SETTINGS.fits[name].seeds
            },
        }
        for name in COMPARED
    }
