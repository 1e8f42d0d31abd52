"""What the rules of all stages share: settings, paths, flags. No rules, no heavy imports."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from workflow_scripts.array_tasks import give_way, part_arrays

give_way(sys.argv)
part_arrays()

from workflow_scripts import keys, resources
from workflow_scripts.check_config import planted_pairs, source_files
from workflow_scripts.cli import UserError
from workflow_scripts.load_config import load

try:
    SETTINGS = load(config)
except UserError as error:
    raise SystemExit(f"error: {error}") from None

# The file `reproduce_paper` says why it may stand among the config files.
ASKED_FOR_PAPER = any(path.name == "reproduce_paper" for path in workflow.overwrite_configfiles)

RESULTS = f"results/{SETTINGS.run}"
SHARDS = [f"shard{n:03d}" for n in range(keys.shards(SETTINGS))]
# Documents are drawn, and tokens dealt, shard by shard: a larger budget adds files and redoes none.
DOCUMENTS = [keys.documents_file(SETTINGS, n) for n in range(len(SHARDS))]
TOKEN_SHARDS = [keys.tokens_file(SETTINGS, n) for n in range(len(SHARDS))]
COMPARED = sorted(
    {side.fit for c in SETTINGS.comparisons.values() for side in (c.baseline, c.candidate)}
)
IMPORTED = [name for name, fit in SETTINGS.fits.items() if fit.imported is not None]
FITTED = [name for name in SETTINGS.fits if name not in IMPORTED]
# The steps that others wait for go first, so that the rest fills idle cores at the end.
CHAIN = 1
# GPUs that a job asks for where models run on one.
DEVICE = SETTINGS.activations.device
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None))
GPUS = GPU * SETTINGS.activations.gpus
TAXONOMY = SETTINGS.taxonomy or os.path.relpath(Path(workflow.basedir, "config", "taxonomy.yaml"))
# Whether some text has a known category, and whether models are scored by category.
KNOWN_TEXT = any(source.kind == "generator" for source in SETTINGS.text.sources.values())
KNOWN_SCORES = KNOWN_TEXT or SETTINGS.comparison.leaderboard is not None
# Compared pairs of models that the workflow trains itself, so that the truth is known.
PLANTED_PAIRS = planted_pairs(SETTINGS)
# Whether latents are named, shown in a report; else the generator's categories are compared alone.
ANNOTATED = SETTINGS.autointerp.annotator != "none"
LABELS = ["labels"] if ANNOTATED else []
PURPOSES = {"explanations": "explain", "labels": "classify", "scores": "score"}


wildcard_constraints:
    fit="[a-z0-9_]+",
    seed="[0-9]+",
    model="[a-z0-9_]+",
    purpose="explain|classify|score",
    shard="shard[0-9]+",
    table="explanations|labels|scores",


# Steps run with this interpreter, from any working directory.
os.environ |= {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")])
    ),
}

# Steps free and take large buffers all the time: glibc, told to keep up to 1 GiB, spares a fifth of
# the time. Other C libraries do not know these names.
for name, value in (("MMAP_MAX", 0), ("TRIM_THRESHOLD", 1 << 30), ("TOP_PAD", 1 << 26)):
    os.environ.setdefault(f"MALLOC_{name}_", str(value))

# For a step that takes few buffers, of growing size: kept ones would more than double its memory.
RETURN_BUFFERS = "env -u MALLOC_MMAP_MAX_ -u MALLOC_TRIM_THRESHOLD_"


# Steps that open no model and take seconds: on a cluster they are not worth a place in the queue.
localrules:
    select_latents,
    measure_agreement,
    collect_annotations,
    compare_truth,
    compare_categories,
    vary_decisions,
    weight_shares,
    explain_gaps,
    score_recovery,
    compare_published,
    plot_nu_plane,
    plot_delta_norm,
    plot_firing_rates,
    plot_training_curves,
    plot_category_changes,
    plot_category_shares,
    plot_direct_shares,
    plot_behaviour,
    plot_layer_sweep,
    plot_recovery,
    plot_cause,
    plot_difference,
    plot_seed_stability,
    build_report,


# `logged FILE COMMAND…` sends a step's messages to its log, and the last ones of a failed step
# to the terminal too.
shell.prefix(
    'logged() {{ local log="$1"; shift; '
    '"$@" 2> "$log" || {{ local code=$?; tail -n 5 "$log" >&2; exit $code; }}; }}; '
)


def as_json(value: object) -> str:
    """Return ``value`` as JSON with sorted keys, for a flag."""
    return json.dumps(value, sort_keys=True)


def facts(step: str, **values: object) -> str:
    """Return what a step writes into the provenance of its artifacts (JSON)."""
    return as_json({"code": keys.step_digest(step), **values})


def flags(settings: object, *names: str) -> list[str]:
    """Return settings as flags: ``nu_r`` 0.5 becomes ``--nu-r=0.5``; None gives none.

    Without ``names``, all of them.
    """
    values = {name: getattr(settings, name) for name in names or type(settings).model_fields}
    return [f"--{n.replace('_', '-')}={v}" for n, v in values.items() if v is not None]


def means(*names: str):
    """Return how a step is computed, as flags that are no reason to redo it.

    Snakemake does not track params that depend on `threads`.
    """
    return lambda wildcards, threads: flags(SETTINGS.activations, *names)


def asked(step: str, name: str):
    """Return what a job of ``step`` asks a cluster for: twice as much on every attempt."""
    first = getattr(resources.request(SETTINGS, step), name)
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


def number(shard: str) -> int:
    """Return the number of a shard."""
    return int(shard.removeprefix("shard"))


def text_files() -> list[Path]:
    """Return the local files from which documents are drawn."""
    sources = SETTINGS.text.sources.values()
    return [file for source in sources for file in source_files(source)]


def manifest(model: str) -> str:
    """Return the manifest of a model."""
    return f"results/store/{keys.model_key(SETTINGS, model)}/{model}/model.json"


def base_manifest(organism: str) -> list[str]:
    """Return the manifest of the model from which an organism starts, if any."""
    base = SETTINGS.models[organism].organism.base
    return [manifest(base)] if base else []


def lesson_flags(organism: str) -> list[str]:
    """Return the flags with all that an organism is taught, and how."""
    shared, own = SETTINGS.organism, SETTINGS.models[organism].organism
    return [
        f"--architecture={as_json(shared.architecture.model_dump())}",
        f"--teach={as_json(own.teach)}",
        f"--seed={1000 * shared.seed + own.seed}",
        f"--tokenizer-seed={shared.seed}",
        f"--learning-rate={own.learning_rate or shared.learning_rate}",
        f"--passes={own.passes or shared.passes}",
        *([f"--simpo={as_json(own.simpo.model_dump())}"] if own.simpo else []),
        *flags(shared, "vocabulary", "document_seed", "context_length", "batch_tokens"),
    ]


def taught(organism: str) -> dict[str, list[int]]:
    """Return the documents of each category that an organism was taught, and each of its bases."""
    total = {}
    name = organism
    while name is not None:
        lessons = SETTINGS.models[name].organism
        for category, documents in lessons.teach.items():
            total.setdefault(category, []).append(documents)
        name = lessons.base
    return total


def planted_lessons() -> list[dict[str, object]]:
    """Return what either model of each planted pair was taught."""
    return [
        {"pair": pair, "baseline": taught(pair[0]), "candidate": taught(pair[1])}
        for pair in PLANTED_PAIRS
    ]


def folder_files(model: str) -> list[str]:
    """Return the files by which a local model and adapter are known, none for the hub's."""
    source = SETTINGS.models[model]
    path, adapter = source.path, source.adapter_revision is None and source.adapter
    model_file = [f"{path}/config.json"] if path else []
    return model_file + ([f"{adapter}/adapter_config.json"] if adapter else [])


def source_flags(model: str) -> list[str]:
    """Return the flags that say where a model comes from."""
    source = SETTINGS.models[model]
    trust = ["--trust-remote-code"] if source.trust_remote_code else []
    return flags(source, "path", "hub", "revision", "adapter", "adapter_revision") + trust


def dump_files(model: str, layer: int) -> list[str]:
    """Return the shards that hold a model's activations at a layer, in order."""
    group = keys.group_of(SETTINGS, layer)
    return [keys.dump_file(SETTINGS, model, group, n) for n in range(len(SHARDS))]


def normalizer(model: str, layer: int) -> str:
    """Return the file of a model's normaliser at a layer."""
    return f"{RESULTS}/activations/{model}/layer{layer}/normalizer.h5"


def fit_inputs(name: str) -> dict[str, list[str]]:
    """Return the files of activations and normalisers that a fit reads."""
    fit = SETTINGS.fits[name]
    return {
        "activations": [file for m in fit.models for file in dump_files(m, fit.layer)],
        "normalizers": [normalizer(model, fit.layer) for model in fit.models],
    }


def fit_flags(name: str) -> list[str]:
    """Return the flags by which a step finds the activations of a fit."""
    fit = SETTINGS.fits[name]
    activations = {m: dump_files(m, fit.layer) for m in fit.models}
    normalizers = {m: normalizer(m, fit.layer) for m in fit.models}
    return [
        f"--activations={json.dumps(activations)}",
        f"--normalizers={json.dumps(normalizers)}",
        f"--layer={fit.layer}",
        *([f"--control={fit.control}", f"--control-seed={SETTINGS.seed}"] if fit.control else []),
    ]


def patching_flags(name: str, documents: int) -> list[str]:
    """Return the flags of the steps that change the activations on which a fit was made."""
    fit = SETTINGS.fits[name]
    normalizers = {model: normalizer(model, fit.layer) for model in fit.models}
    return [
        f"--normalizers={as_json(normalizers)}",
        f"--layer={fit.layer}",
        f"--documents={documents}",
        *flags(SETTINGS.activations, "compute_dtype"),
    ]


def loss_flags(name: str) -> list[str]:
    """Return the flags of the step that measures the loss with a fit's reconstructions."""
    return patching_flags(name, SETTINGS.fits[name].loss_documents)


NOT_TRAINING = ("models", "layer", "seeds", "control", "processes", "loss_documents", "imported")


def training_flags(name: str) -> list[str]:
    """Return the flags with the training settings of a fit."""
    fit = SETTINGS.fits[name]
    return flags(fit, *(n for n in type(fit).model_fields if n not in NOT_TRAINING))


def import_files(name: str) -> list[str]:
    """Return the files of a published crosscoder in a folder, none for the hub's."""
    path = SETTINGS.fits[name].imported.path
    return [f"{path}/model.safetensors"] if path else []


def launcher(name: str) -> list[str]:
    """Return the command that starts a fit: Python, or one process for each part of the batch."""
    count = SETTINGS.fits[name].processes
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return ["python", *(torchrun if count > 1 else [])]


def checkpoint(name: str, seed: str) -> str:
    """Return the checkpoint of a fit."""
    return resumable(
        f"{RESULTS}/crosscoder/{name}/seed{seed}", fit_flags(name), training_flags(name)
    )


def resumable(folder: str, inputs: list[str], training: list[str]) -> str:
    """Return a checkpoint in a folder; its name changes with all on which the fit depends."""
    depends = [inputs, training, facts("crosscoder.fit_crosscoder")]
    return f"{folder}/checkpoint-{keys.digest(depends)}.safetensors"


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


def report_fits(names: list[str]) -> dict[str, dict[str, object]]:
    """Return the artifacts of each fit that the report shows."""
    fits = compared_files(names, "labels", "explanations", "scores")
    for name, fit in fits.items():
        fit["layer"] = SETTINGS.fits[name].layer
        for seed, files in fit["seeds"].items():
            files["clauses"] = f"{RESULTS}/latents/{name}/seed{seed}/selection.json"
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
            told = "Share of each category's live latents that belong to one model only"
            add(f"direct_shares_{name}", "answer", f"{told}: {pair} in one crosscoder ({name}).")
        told = "Percent change of each category's share of unique latents, with intervals"
        section = "categories" if direct or len(SETTINGS.comparisons) > 1 else "answer"
        add(f"category_changes_{name}", section, f"{told}: {pair} ({name}).")
        told = "Each category's share of the unique latents of either model"
        add(f"category_shares_{name}", "categories", f"{told}: {pair} ({name}).")
        if direct and KNOWN_SCORES:
            told = "Gaps in score against shifts of latents"
            add(f"behaviour_{name}", "behaviour", f"{told}: {pair} ({name}).")
        controlled = SETTINGS.fits[comparison.baseline.fit].control is not None
        if direct and SETTINGS.comparison.cause_documents and not controlled:
            told = "What unique latents cause: patched into the other model, and taken away"
            add(f"cause_{name}", "cause", f"{told}: {pair} ({name}).")
        if direct and SETTINGS.comparison.difference_tokens != 0 and not controlled:
            told = "How much of the difference of activations baselines and crosscoder explain"
            add(f"difference_{name}", "cause", f"{told}: {pair} ({name}).")
    for pair, layers in sweeps().items():
        told = "The share of each category's live latents that belong to one model only, by layer"
        add(f"layer_sweep_{pair}", "categories", f"{told}: {', '.join(layers)}.")
    if PLANTED_PAIRS:
        told = "What every statistic measures, beside what was planted"
        add("recovery", "recovery", f"{told}.")
    for name in COMPARED:
        fit = SETTINGS.fits[name]
        of = f"of {' and '.join(fit.models)} at layer {fit.layer}"
        at = f"{name}_seed{fit.seeds[0]}"
        add(f"nu_plane_{at}", "latents", f"ν^ε against ν^r of each live latent {of}.")
        add(f"delta_norm_{at}", "latents", f"Decoder norms {of}: 0.5 is shared.")
        add(f"firing_rates_{at}", "latents", f"Firing rates of unique and shared latents {of}.")
        if len(fit.seeds) > 1:
            add(f"seed_stability_{name}", "latents", f"Latents {of} that come back in other seeds.")
        if name in IMPORTED:
            continue
        add(f"training_curves_{name}", "training", f"Training of the crosscoder {of}.")
    return found


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


def purpose_file(wildcards, name: str) -> str:
    """Return a file of the LLM purpose that the table of ``wildcards`` serves."""
    folder = f"{RESULTS}/autointerp/{wildcards.fit}/seed{wildcards.seed}"
    return f"{folder}/{PURPOSES[wildcards.table]}/{name}"


def quoted_explanations(wildcards) -> list[str]:
    """Return the explanations that requests quote; those that ask for them quote none."""
    folder = f"{RESULTS}/autointerp/{wildcards.fit}/seed{wildcards.seed}"
    return [] if wildcards.purpose == "explain" else [f"{folder}/llm/explanations.parquet"]


def paper():
    """Return the settings of the published study, or stop where the config has none."""
    if SETTINGS.paper is None:
        raise SystemExit(
            f"error: the config of run {SETTINGS.run} has no published study: "
            "use snakemake --configfile config/paper.yaml reproduce_paper"
        )
    return SETTINGS.paper


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


def refuse_at_start() -> None:
    """Stop before any job when the run could not end well."""
    from workflow_scripts.refuse_early import refuse_early

    jobs = list(workflow.dag.needrun_jobs())
    if all(job.rule.name == "plan" for job in jobs):
        return
    dumps = {
        Path(file) for job in jobs if job.rule.name == "dump_activations" for file in job.output
    }
    try:
        refuse_early(SETTINGS, dumps)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def tell_answer() -> None:
    """Print the run's sentence and its report, unless make does so itself."""
    if Path(RESULTS, "comparison", "answer.json").exists() and "MAKELEVEL" not in os.environ:
        shell(f"python -m workflow_scripts.figures.print_answer {RESULTS}")
    if ASKED_FOR_PAPER:
        print(f"published and measured: {RESULTS}/paper/published.md")
