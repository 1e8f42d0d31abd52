"""What a run will take, before anything is spent: ``snakemake plan``.

Estimates from the config and from the files at hand, without network or data: text, files and bytes
per stage, floating-point operations and hours of forward passes and fits, calls and tokens of an
LLM, room on the disk. What is in the store already is not counted.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.autointerp.llm.cost import OUTPUT_TOKENS
from workflow_scripts.autointerp.settings import LABEL, Llm
from workflow_scripts.common import cli
from workflow_scripts.common.cli import UserError
from workflow_scripts.run import resources, store_keys
from workflow_scripts.run.comparisons import (
    compared_fits,
    difference_comparisons,
    fit_of,
    llm_labels_documents,
)
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.settings import Config

TOKEN_BYTES = 8  # of a token shard: id, role, template flag, category
INDEX_BYTES = 9  # of a row of a dump: document, position, split
COMPRESSED = 0.45  # of text, in Parquet
UNIQUE = 200  # latents of both models that are annotated beside the shared ones: a guess
# Tokens of a prompt, taxonomy too; characters of a text make a quarter as many.
INSTRUCTIONS = {"explain": 700, "classify": 2500, "score": 500, "label": 2500}
CONTEXTS = {"explain": 30, "classify": 5}  # in a prompt
RESULTS = Path("results")


@dataclass(frozen=True)
class Part:
    """What a stage makes: files, bytes in all, and bytes still to be made."""

    stage: str
    files: int
    bytes: float
    missing: float
    note: str


@dataclass(frozen=True)
class PlannedCalls:
    """Calls of an LLM, with the tokens that go in and come out, and what they cost."""

    calls: int
    tokens_in: float
    tokens_out: float
    cost: float
    """In the unit of the prices; of the annotators whose model has one."""


def parts(config: Config, needed: Collection[Path] | None = None) -> list[Part]:
    """Return what each stage makes; of dumps, only ``needed`` ones are to be made where given."""
    return [_text(config), *_models(config), _dumps(config, needed), _fits(config)]


def _part(stage: str, files: dict[Path, float], note: str, needed: Collection[Path] | None) -> Part:
    missing = (
        [p for p in files if not p.exists()] if needed is None else [*set(needed) & files.keys()]
    )
    to_make = sum(files[path] for path in missing)
    return Part(stage, len(files), sum(files.values()), to_make, note)


def _text(config: Config) -> Part:
    text, paths, files = config.text, Paths(config), dict[Path, float]()
    for n, (documents, shard) in enumerate(zip(paths.documents, paths.tokens, strict=True)):
        tokens = store_keys.shard_tokens(config, n)
        files[Path(documents)] = (1 + text.reserve) * COMPRESSED * text.bytes_per_token * tokens
        files[Path(shard)] = TOKEN_BYTES * tokens
    least = math.ceil((1 + text.reserve) * text.tokens / text.longest)
    shards = store_keys.shards(config)
    note = f"{text.tokens:,} tokens of {least:,} documents or more; shards: {shards}"
    return _part("dataset", files, note, None)


def _models(config: Config) -> list[Part]:
    """Return the models to be fetched or converted; those that the run trains are small."""
    sizes = {name: resources.size(config, name).parameters for name in config.models}
    hub = [name for name, model in config.models.items() if model.hub]
    found = []
    if hub:
        total = sum(2 * sizes[name] for name in hub)
        found.append(Part("models", len(hub), total, 0, "in the hub's cache, which HF_HOME names"))
    files = {
        Path(str(Paths(config).model_folder(name)), "model.safetensors"): 4.0 * sizes[name]
        for name, model in config.models.items()
        if model.gguf
    }
    return [*found, *([_part("models", files, "dequantised", None)] if files else [])]


def dumps(config: Config) -> dict[Path, tuple[str, str, int]]:
    """Return model, group and shard of every dump that some fit reads, by its file."""
    used, paths = (
        {(m, fit.layer) for fit in config.fits.values() for m in fit.models},
        Paths(config),
    )
    groups = {(model, paths.group_of(layer)) for model, layer in used}
    return {
        Path(paths.dump(model, group, shard)): (model, group, shard)
        for model, group in sorted(groups)
        for shard in range(store_keys.shards(config))
    }


def _dumps(config: Config, needed: Collection[Path] | None) -> Part:
    files = {}
    for path, (model, group, shard) in dumps(config).items():
        width = resources.size(config, model).width
        row = len(config.layers[group]) * (width * resources.BYTES[config.activations.dtype] + 4)
        files[path] = float(store_keys.shard_tokens(config, shard) * (row + INDEX_BYTES))
    named = len({model for model, _, _ in dumps(config).values()})
    return _part("activations", files, f"{config.activations.dtype} of {named} models", needed)


def _fits(config: Config) -> Part:
    files, largest = dict[Path, float](), 0.0
    for name, fit in config.fits.items():
        size = 4 * _parameters(config, name)
        largest = max(largest, size)
        for seed in fit.seeds:
            files[Path(Paths(config).crosscoder(name, seed), "crosscoder.safetensors")] = size
    part = _part("crosscoder", files, "and a checkpoint while one is fitted", None)
    checkpoint = 3 * largest if part.missing else 0
    return Part(part.stage, part.files, part.bytes, part.missing + checkpoint, part.note)


def _parameters(config: Config, name: str) -> float:
    """Return the parameters of a crosscoder: encoder and decoder of each model."""
    fit = config.fits[name]
    width = max(resources.size(config, model).width for model in fit.models)
    return 2.0 * len(fit.models) * width * fit.dictionary_size


def forward_flop(config: Config) -> float:
    """Return the operations of the dumps to be made: 2 per parameter and token, to the last layer.

    Of a model whose depth is not known, all layers.
    """
    total = 0.0
    for path, (model, group, shard) in dumps(config).items():
        if not path.exists():
            whole = resources.depth(config, model)
            share = max(config.layers[group]) / whole if whole else 1.0
            tokens = store_keys.shard_tokens(config, shard)
            total += 2 * share * resources.size(config, model).parameters * tokens
    return total


def fit_flop(config: Config) -> float:
    """Return the operations of all fits: 3 per parameter and token, since most is sparse."""
    crosscoders = sum(
        len(fit.seeds) * 3 * _parameters(config, name) * fit.tokens
        for name, fit in config.fits.items()
        if fit.imported is None
    )
    drawn = config.comparison.difference_tokens
    return crosscoders + sum(
        3
        * _parameters(config, name)
        / len(config.fits[name].models)
        * (config.fits[name].tokens if drawn is None else drawn)
        for name in (fit_of(config, c) for c in difference_comparisons(config))
    )


def annotated(config: Config, unique: float) -> list[int]:
    """Return how many latents are annotated, per crosscoder.

    They are known once examples were collected; else as many as are shared at most, and ``unique``.
    """
    import pyarrow.parquet as pq  # a run's start, which only checks the disk, needs no tables

    counts = []
    for name in compared_fits(config):
        for seed in config.fits[name].seeds:
            path = Path(Paths(config).latents(name, seed), "examples.parquet")
            if path.exists():
                latents = pq.read_table(path, columns=["latent"])["latent"]
                counts.append(len(latents.unique()))
            else:
                guess = config.latents.examples.shared_latents + unique
                counts.append(int(min(config.fits[name].dictionary_size, guess)))
    return counts


def sampled_documents(config: Config) -> int:
    """Return how many documents an LLM labels: fewer than asked for where the text holds fewer.

    That is known once the text is drawn.
    """
    import pyarrow.parquet as pq

    llm, tables = config.autointerp.llm, [Path(file) for file in Paths(config).documents]
    wanted = llm.documents.sample if llm is not None and llm_labels_documents(config) else 0
    if not wanted or not all(path.exists() for path in tables):
        return wanted
    splits = (pq.read_table(path, columns=["split"])["split"].to_pylist() for path in tables)
    return min(wanted, sum(int(names.count("score")) for names in splits))


def llm_calls(config: Config, unique: float = UNIQUE) -> dict[str, PlannedCalls]:
    """Return the calls of each purpose and their cost, for latents as in :func:`annotated`."""
    llm = config.autointerp.llm
    if config.autointerp.annotator != "llm" or llm is None:
        return {}
    latents = annotated(config, unique)
    subjects = sum(latents) * llm.replicates  # of each annotator
    batches = math.ceil(llm.held_out / llm.items_per_prompt)
    batches += math.ceil(llm.null / llm.items_per_prompt)
    batches += math.ceil(llm.fuzz / llm.items_per_prompt)
    window = config.latents.examples.window
    each = {"explain": (1, CONTEXTS["explain"], 1), "classify": (1, CONTEXTS["classify"], 1)}
    each["score"] = (batches, llm.items_per_prompt, llm.items_per_prompt)
    planted = {"classify": sum(min(llm.canaries, count) for count in latents) * llm.replicates}
    counts: dict[str, PlannedCalls] = {}
    if documents := sampled_documents(config) * llm.replicates:
        counts[LABEL] = _planned(llm, LABEL, documents, llm.documents.characters / 4, 1)
    for purpose, (times, contexts, items) in each.items():
        requests = subjects * times + planted.get(purpose, 0)
        counts[purpose] = _planned(llm, purpose, requests, contexts * window, items)
    return counts


def _planned(llm: Llm, purpose: str, requests: int, shown: float, items: int) -> PlannedCalls:
    """Return the calls of so many requests of each annotator, which show so many tokens each."""
    models = [annotator.model for annotator in llm.annotators.values()]
    tokens_in = round(requests * (INSTRUCTIONS[purpose] + shown))
    tokens_out = requests * items * OUTPUT_TOKENS[purpose]
    prices = [llm.prices[model] for model in models if model in llm.prices]
    return PlannedCalls(
        requests * len(models),
        float(tokens_in * len(models)),
        float(tokens_out * len(models)),
        sum(price.cost(tokens_in, tokens_out) for price in prices),
    )


def free_bytes() -> float:
    """Return the room on the disk that holds the results."""
    folder = RESULTS.resolve()
    while not folder.exists():
        folder = folder.parent
    return float(shutil.disk_usage(folder).free)


def check_disk(config: Config, needed: Collection[Path] | None = None) -> None:
    """Refuse a run that cannot fit on the disk.

    Raises
    ------
    UserError
        If what is to be made exceeds the room on the disk.
    """
    missing, free = sum(part.missing for part in parts(config, needed)), free_bytes()
    if missing > free:
        raise UserError(
            f"the run {config.run} needs about {human(missing)} on the disk of results, which has "
            f"{human(free)} free: lower text.tokens, dump fewer layers, or make room "
            "(snakemake plan says what takes it)"
        )


def human(size: float) -> str:
    """Return bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB" if size < 1000 else f"{size:,.0f} TB"


def hours(seconds: float) -> str:
    """Return a duration in the unit that fits."""
    if seconds < 60:
        return "under 1 min"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"


def duration(config: Config, flop: float) -> str:
    """Return how long so many operations take on a GPU, and on a CPU where there is no GPU here."""
    device = config.activations.device
    time = hours(flop / resources.flop_rate(config))
    if device == "cpu":
        return time
    here = device == "cuda" or shutil.which("nvidia-smi")
    return f"{time} of a GPU" + ("" if here else f" or {hours(flop / resources.CPU_RATE)} of a CPU")


def describe(config: Config) -> str:
    """Return the plan as text."""
    from workflow_scripts.run import plan_witnesses as witnesses  # reads tables, a run's start none

    lines = [f"plan of the run {config.run}"]
    made = parts(config)
    for part in made:
        lines.append(
            f"  {part.stage:<12} {part.files:>5} files {human(part.bytes):>9}, "
            f"{human(part.missing)} to make: {part.note}"
        )
    rate = f"{resources.flop_rate(config):.2g} FLOP/s"
    for name, flop in (("forward", forward_flop(config)), ("fits", fit_flop(config))):
        lines.append(f"  {name:<12} {flop:.2g} FLOP: {duration(config, flop)}, at {rate}")
    labels, spectra = (f(config) for f in (witnesses.label_flop, witnesses.spectrum_flop))
    lines.append(
        f"  witnesses    predictions and answers: {labels:.2g} FLOP per label, "
        f"{duration(config, labels)}; weights: {spectra:.2g} FLOP, {duration(config, spectra)}"
    )
    lines += witnesses.weight_lines(config)
    calls = llm_calls(config)
    for purpose, count in calls.items():
        lines.append(
            f"  LLM {purpose:<8} {count.calls:,} calls, {count.tokens_in:,.0f} tokens in, "
            f"{count.tokens_out:,.0f} out, about"
        )
    lines += _llm_notes(config, calls) if calls else ["  LLM          no calls"]
    missing, free = sum(part.missing for part in made), free_bytes()
    lines.append(
        f"  disk         {human(missing)} to make, {human(free)} free: "
        + ("it fits" if missing <= free else "IT DOES NOT FIT")
    )
    lines += [
        f"  with half of {name}: {saving(config, less)} less" for name, less in halved(config)
    ]
    return "\n".join(lines)


def _llm_notes(config: Config, calls: Mapping[str, PlannedCalls]) -> Iterator[str]:
    """Yield for how many latents the calls are, and what they cost as far as prices are known."""
    llm = config.autointerp.llm
    assert llm is not None
    most = llm_calls(config, math.inf)
    latents, bound = (sum(annotated(config, unique)) for unique in (UNIQUE, math.inf))
    yield f"  LLM          for {latents:,} latents" + (
        f": how many are unique to a model is a guess, {bound:,} at most" if bound > latents else ""
    )
    total, highest = (sum(c.cost for c in counts.values()) for counts in (calls, most))
    if total:
        yield f"  LLM          cost {total:,.2f} in the unit of autointerp.llm.prices" + (
            f", {highest:,.2f} if they are as many as can be" if highest > total else ""
        )
    unpriced = sorted({a.model for a in llm.annotators.values()} - llm.prices.keys())
    if unpriced:
        yield f"  LLM          no price is configured for {', '.join(unpriced)}"


def halved(config: Config) -> Iterator[tuple[str, Config]]:
    """Yield settings that cost, and the config with half of each."""
    text = config.text.model_copy(update={"tokens": config.text.tokens // 2})
    yield "text.tokens", config.model_copy(update={"text": text})
    for name in ("dictionary_size", "tokens"):
        fits = {
            key: fit.model_copy(update={name: getattr(fit, name) // 2})
            for key, fit in config.fits.items()
        }
        yield f"fits.*.{name}", config.model_copy(update={"fits": fits})


def saving(config: Config, less: Config) -> str:
    """Return the room and the time that ``less`` does not take."""
    room = [sum(part.missing for part in parts(each)) for each in (config, less)]
    work = [forward_flop(each) + fit_flop(each) for each in (config, less)]
    time = duration(config, work[0] - work[1])
    return f"{human(room[0] - room[1])} and {time}" if room[0] > room[1] else time


def plan_run(settings: dict[str, Any]) -> None:
    """Print the plan of a run.

    Parameters
    ----------
    settings
        all settings of the run
    """
    print(describe(Config.model_validate(settings)))


main = cli.command(plan_run)


if __name__ == "__main__":
    raise SystemExit(main())
