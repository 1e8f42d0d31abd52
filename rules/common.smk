"""What the rules of all stages share: settings, paths, flags. No rules, no heavy imports."""

import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from workflow_scripts.run.array_tasks import give_way, part_arrays

give_way(sys.argv)
part_arrays()

from workflow_scripts.run import resources, store_keys
from workflow_scripts.run.checks import planted_pairs, source_files
from workflow_scripts.common.cli import UserError
from workflow_scripts.run.load import load

try:
    SETTINGS = load(config)
except UserError as error:
    raise SystemExit(f"error: {error}") from None

# The file `reproduce_paper` says why it may stand among the config files.
ASKED_FOR_PAPER = any(path.name == "reproduce_paper" for path in workflow.overwrite_configfiles)

RESULTS = f"results/{SETTINGS.run}"
SHARDS = [f"shard{n:03d}" for n in range(store_keys.shards(SETTINGS))]
# Documents are drawn, and tokens dealt, shard by shard: a larger budget adds files and redoes none.
DOCUMENTS = [store_keys.documents_file(SETTINGS, n) for n in range(len(SHARDS))]
TOKEN_SHARDS = [store_keys.tokens_file(SETTINGS, n) for n in range(len(SHARDS))]
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


def in_order(value: object) -> str:
    """Return ``value`` as JSON in the config's order, for a flag where the first one counts."""
    return json.dumps(value)


def facts(step: str, **values: object) -> str:
    """Return what a step writes into the provenance of its artifacts (JSON)."""
    return as_json({"code": store_keys.step_digest(step), **values})


def flags(settings: object, *names: str | type) -> list[str]:
    """Return settings as flags: ``nu_r`` 0.5 becomes ``--nu-r=0.5``; None gives none.

    ``names`` are those of settings, or groups of which ``settings`` has all; without any, all.
    """
    chosen = [
        n for name in names or [type(settings)] for n in getattr(name, "model_fields", [name])
    ]
    values = {name: getattr(settings, name) for name in chosen}
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
    return f"results/store/{store_keys.model_key(SETTINGS, model)}/{model}/model.json"


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
    group = store_keys.group_of(SETTINGS, layer)
    return [store_keys.dump_file(SETTINGS, model, group, n) for n in range(len(SHARDS))]


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
    return f"{folder}/checkpoint-{store_keys.digest(depends)}.safetensors"


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


def refuse_at_start() -> None:
    """Stop before any job when the run could not end well."""
    from workflow_scripts.run.preflight import refuse_early

    jobs = list(workflow.dag.needrun_jobs())
    if all(job.rule.name == "plan" for job in jobs):
        return
    dumps = {
        Path(file) for job in jobs if job.rule.name == "dump_activations" for file in job.output
    }
    try:
        refuse_early(SETTINGS, dumps, calls=any(job.rule.name == "call_llm" for job in jobs))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def tell_answer() -> None:
    """Print the run's sentence and its report, unless make does so itself."""
    if Path(RESULTS, "comparison", "answer.json").exists() and "MAKELEVEL" not in os.environ:
        shell(f"python -m workflow_scripts.tools.print_answer {RESULTS}")
    if ASKED_FOR_PAPER:
        print(f"published and measured: {RESULTS}/paper/published.md")
