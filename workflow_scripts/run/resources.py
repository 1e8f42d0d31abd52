"""What a job requests from a cluster: memory and time as functions of the work.

Generous estimates, for a first attempt; a job that fails requests twice as much each time.
All jobs of a step request what the largest of them needs. Nothing is read but the config and the
files of local models, so that a plan needs neither network nor data. The Snakefile uses this
module; no step does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workflow_scripts.models.folders import ModelFolder
from workflow_scripts.models.gguf_header import read_gguf
from workflow_scripts.models.weights import read_object
from workflow_scripts.run import comparisons
from workflow_scripts.run.settings import Config

LIBRARIES = 2_500
"""MB of an idle step with its libraries."""
READER = 2_500
"""MB of the reader that shuffles activations (1 GiB), and of what is in flight."""
HELD = 1 << 26
"""Pre-activations that are held at once (``crosscoder/codes.py``)."""
ENCODED = 9
"""Bytes of each: scores twice in float32, and a mask."""
EVALUATED = 4096
"""Tokens among which ``evaluate_crosscoder`` chooses the active latents, as a fit does."""
KNOWN = 24
"""Bytes of what is known of a token of the text, while it is read."""
SHOWN = 0.05
"""Share of the latents of which contexts are collected, with their entries, at most: a guess."""
PEAK = 80
"""Bytes of a latent's strongest token in a document, while they are sorted."""
WINDOWS = 1_500
"""MB of a split's activations that are kept, and of contexts that are written together."""
WHOLE = 1.8
"""What the largest of the steps that encode holds, by the size of encoder and decoder in float32;
``tests/benchmarks/bench_memory.py`` measures it."""
GPU_RATE, CPU_RATE = 6e13, 3e10
"""FLOP per second that count on: a sixth of an H100's peak in bfloat16, a few CPU cores."""
ASKED, ITEM = 2_000, 80
"""Bytes held per request about a latent, and per judged context."""
LEAST_MINUTES = 15
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "auto": 4}
UNKNOWN = 8e9
"""Parameters of a hub model whose name does not tell them, as «9b» and «135M» do."""
WIDTH = 4096
"""Width of a local model whose files do not tell it."""


@dataclass(frozen=True)
class JobRequest:
    """A job's request: memory in MB, time in minutes."""

    mem_mb: int
    runtime: int


@dataclass(frozen=True)
class Size:
    """A model: number of parameters, width of the residual stream."""

    parameters: float
    width: int


@cache
def folder_size(folder: Path) -> Size:
    """Return the size of a model in a local folder, from its files."""
    inner = _describe(folder).text
    kind = inner.get("dtype") or inner.get("torch_dtype") or "float32"
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    widths = (inner.get("hidden_size"), inner.get("n_embd"))
    width = next((width for width in widths if isinstance(width, int) and width > 0), WIDTH)
    return Size(total / BYTES.get(str(kind), 2), width)


def size(config: Config, model: str) -> Size:
    """Return the size of a model; of a hub model as far as its name says ("…-9b…", "…-135M")."""
    source = config.models[model]
    if source.path is not None:
        return folder_size(Path(source.path))
    if source.gguf is not None:
        found = read_gguf(f"config: models.{model}", Path(source.gguf))
        return Size(found.parameters, found.width or WIDTH)
    if source.organism is not None:
        shape = config.organism.architecture
        block = 4 * shape.width**2 + 3 * shape.width * shape.intermediate
        vocabulary = config.organism.vocabulary * shape.width
        return Size(shape.layers * block + vocabulary, shape.width)
    told = re.search(r"(\d+(?:\.\d+)?)([bm])\b", (source.hub or "").lower())
    parameters = float(told[1]) * {"b": 1e9, "m": 1e6}[told[2]] if told else UNKNOWN
    return Size(parameters, round(1.75 * parameters ** (1 / 3)))


def depth(config: Config, model: str) -> int | None:
    """Return a model's number of layers; None for a hub model."""
    source = config.models[model]
    if source.organism is not None:
        return config.organism.architecture.layers
    if source.gguf is not None:
        return read_gguf(f"config: models.{model}", Path(source.gguf)).layers
    if source.path is None:
        return None
    return _describe(Path(source.path)).layers


def _describe(folder: Path) -> ModelFolder:
    """Return what a folder's config.json says."""
    return ModelFolder(read_object(str(folder), folder / "config.json"), {})


def largest(config: Config) -> Size:
    """Return the largest number of parameters and the largest width of any model."""
    sizes = [size(config, model) for model in config.models]
    return Size(max(s.parameters for s in sizes), max(s.width for s in sizes))


def crosscoder_parameters(config: Config) -> float:
    """Return the parameters of the largest crosscoder: encoder and decoder of each model."""
    width = largest(config).width
    return max(2 * len(f.models) * width * f.dictionary_size for f in config.fits.values())


def minutes(config: Config, flop: float) -> int:
    """Return the time for so many floating-point operations, and for the start of the job."""
    return LEAST_MINUTES + round(flop / flop_rate(config) / 60)


def flop_rate(config: Config) -> float:
    """Return the assumed operations per second."""
    usual = CPU_RATE if config.activations.device == "cpu" else GPU_RATE
    return config.activations.flop_per_second or usual


def forward(config: Config, tokens: float) -> JobRequest:
    """Return the request of a model's forward passes: 2 FLOP per parameter and token."""
    model = largest(config)
    weights = model.parameters * BYTES[config.activations.compute_dtype]
    return JobRequest(
        LIBRARIES + READER + round(1.2 * weights / 1e6),
        minutes(config, 2 * model.parameters * tokens),
    )


def dump_activations(config: Config) -> JobRequest:
    """One shard through one model: its weights, 2 FLOP per parameter and token."""
    return forward(config, min(config.text.shard_tokens, config.text.tokens))


def evaluate_behaviour(config: Config) -> JobRequest:
    """Two models at a time; some documents of each label of each labeller through each pair."""
    documents = 100 * config.comparison.documents_per_label
    passes = 2 * len(comparisons.compared_pairs(config))
    one = forward(config, documents * config.text.longest * passes)
    return JobRequest(2 * one.mem_mb, one.runtime)


def compare_predictions(config: Config) -> JobRequest:
    """Two models held at once; a few documents of each label through them."""
    documents = 100 * config.comparison.prediction_documents
    one = forward(config, 2 * documents * config.text.longest)
    return JobRequest(2 * one.mem_mb, one.runtime)


def generate_answers(config: Config) -> JobRequest:
    """A model at a time; a token of an answer costs as much as 20 that are read together."""
    documents = 100 * config.comparison.answer_documents
    return forward(config, 2 * 20 * documents * config.comparison.answer_tokens)


def patch_models(config: Config) -> JobRequest:
    """Two models and a crosscoder held at once; some documents through them for every set."""
    documents = 40 * config.comparison.cause_documents * config.text.longest
    one, crosscoder = forward(config, 30 * documents), 4 * crosscoder_parameters(config) / 1e6
    return JobRequest(2 * one.mem_mb + round(crosscoder), one.runtime)


def recover_loss(config: Config) -> JobRequest:
    """All models of a fit and a crosscoder held at once; some documents through them five times."""
    models = max(len(fit.models) for fit in config.fits.values())
    documents = max(fit.loss_documents for fit in config.fits.values()) * len(config.text.sources)
    one = forward(config, 5 * models * documents * config.text.longest)
    crosscoder = 4 * crosscoder_parameters(config) / 1e6
    return JobRequest(models * one.mem_mb + round(crosscoder), one.runtime)


def fit_crosscoder(config: Config) -> JobRequest:
    """Weights, gradients and two moments in float32; three products with the encoder per token."""
    parameters = crosscoder_parameters(config)
    tokens = max(fit.tokens for fit in config.fits.values())
    processes = max(fit.processes for fit in config.fits.values())
    gathered = 4 * parameters if processes > 1 else 0  # by the first process, at the end
    return JobRequest(
        processes * (LIBRARIES + READER) + round((16 * parameters + gathered) / 1e6),
        minutes(config, 3 * parameters * tokens),
    )


def largest_dictionary(config: Config) -> int:
    """Return the latents of the largest crosscoder."""
    return max(fit.dictionary_size for fit in config.fits.values())


def encode(config: Config, share: float, tokens: int | None = None) -> JobRequest:
    """Return the request of encoding a share of the text once.

    ``tokens`` are those whose pre-activations are held at once, where they are not bounded.
    """
    parameters, latents = crosscoder_parameters(config), largest_dictionary(config)
    sums = 16 * latents * (config.latents.groups + 8)
    held = tokens * latents if tokens else min(4096 * latents, HELD)
    used = WHOLE * 4 * parameters + 8 * sums + ENCODED * held + KNOWN * config.text.tokens
    return JobRequest(
        LIBRARIES + READER + round(used / 1e6),
        minutes(config, 2 * parameters * share * config.text.tokens),
    )


def show(config: Config, *shares: float) -> JobRequest:
    """Return the request of showing some latents on shares of the text, one after another.

    Of the crosscoder the latents that are shown alone are held.
    """
    k = max(fit.k for fit in config.fits.values())
    active = SHOWN * k * max(shares) * config.text.tokens
    whole = encode(config, sum(shares))
    used = SHOWN * 4 * crosscoder_parameters(config) + PEAK * active + KNOWN * config.text.tokens
    return JobRequest(LIBRARIES + READER + WINDOWS + round(used / 1e6), whole.runtime)


def read_text(config: Config) -> JobRequest:
    """A shard's text and tokens held in memory, and the hashes of what was drawn before."""
    shard = min(config.text.shard_tokens, config.text.tokens)
    held = 2 * shard * (config.text.bytes_per_token + 16) + config.text.tokens
    return JobRequest(LIBRARIES + round(held / 1e6), LEAST_MINUTES + round(shard / 1e6))


def label_documents(config: Config) -> JobRequest:
    """The documents that topics are fitted on, their words, and all labels."""
    documents = config.text.tokens / 100
    return JobRequest(
        LIBRARIES + READER + round(documents / 1e3), LEAST_MINUTES + round(documents / 2e4)
    )


def table(config: Config) -> JobRequest:
    """Tables of latents and contexts."""
    latents = largest_dictionary(config)
    return JobRequest(LIBRARIES + READER + latents // 50, LEAST_MINUTES + latents // 2000)


def ask_annotators(config: Config) -> JobRequest:
    """The contexts of a few latents; for all latents, each annotator's requests and scores."""
    llm = config.autointerp.llm
    latents = largest_dictionary(config)
    requests = latents * len(llm.annotators) * llm.replicates if llm else latents
    items = llm.held_out + llm.null + llm.fuzz if llm else 0
    held = requests * (ASKED + ITEM * items)
    return JobRequest(LIBRARIES + round(held / 1e6), LEAST_MINUTES + requests // 4000)


def convert_gguf(config: Config) -> JobRequest:
    """A model in float32, and a copy of it while it is read and written."""
    parameters = largest(config).parameters
    return JobRequest(LIBRARIES + round(10 * parameters / 1e6), minutes(config, 1e3 * parameters))


def train_organism(config: Config) -> JobRequest:
    """A small model, its gradients and moments."""
    parameters = largest(config).parameters
    return JobRequest(LIBRARIES + READER + round(16 * parameters / 1e6), 60)


def spectrum_flop(config: Config) -> float:
    """Return the operations of the spectra of a model's changes: about 2 per weight and width."""
    model = largest(config)
    return 2 * model.parameters * model.width


def compare_weights(config: Config) -> JobRequest:
    """A tensor of each model at a time; an adapter's model as a whole."""
    adapted = any(model.adapter for model in config.models.values())
    weights = 2 * 4 * largest(config).parameters / (1 if adapted else 8)
    return JobRequest(LIBRARIES + round(weights / 1e6), minutes(config, spectrum_flop(config)))


def fit_normalizer(config: Config) -> JobRequest:
    """Activations of one model, read once."""
    return JobRequest(LIBRARIES + READER, LEAST_MINUTES + round(config.text.tokens / 1e7))


def encode_score(config: Config) -> JobRequest:
    """Encode the score split once: weights in float32, a product with the encoder per token."""
    return encode(config, config.text.splits.score)


def score_latents(config: Config) -> JobRequest:
    """Encode the score split, and keep the sums of latent scaling per group of documents."""
    return encode(config, 2 * config.text.splits.score)


def evaluate_crosscoder(config: Config) -> JobRequest:
    """Encode the score split once; pre-activations of a batch are held whole, as in a fit."""
    return encode(config, config.text.splits.score, EVALUATED)


def promote_tokens(config: Config) -> JobRequest:
    """A model and a crosscoder; all latents times the vocabulary, 128,000 tokens where unknown."""
    latents = max(fit.dictionary_size for fit in config.fits.values())
    one, crosscoder = forward(config, 0), 4 * crosscoder_parameters(config) / 1e6
    flop = 8 * latents * largest(config).width * 128_000
    return JobRequest(one.mem_mb + round(crosscoder), minutes(config, flop))


def collect_examples(config: Config) -> JobRequest:
    """Encode the splits explain and verify by the latents that are shown; few contexts at once."""
    return show(config, config.text.splits.explain, config.text.splits.verify)


def show_carriers(config: Config) -> JobRequest:
    """Encode the explain split by the latents that are shown."""
    return show(config, config.text.splits.explain)


def sample_documents(config: Config) -> JobRequest:
    """A few documents at a time, and hashes of all; one job draws those of all shards."""
    return JobRequest(read_text(config).mem_mb, LEAST_MINUTES + round(config.text.tokens / 1e6))


REQUESTS: dict[str, Callable[[Config], JobRequest]] = {
    "sample_documents": sample_documents,
    "tokenize_documents": read_text,
    "label_documents": label_documents,
    "train_organism": train_organism,
    "convert_gguf": convert_gguf,
    "compare_weights": compare_weights,
    "dump_activations": dump_activations,
    "fit_normalizer": fit_normalizer,
    "fit_crosscoder": fit_crosscoder,
    "fit_difference": fit_crosscoder,
    "import_crosscoder": encode_score,
    "evaluate_crosscoder": evaluate_crosscoder,
    "recover_loss": recover_loss,
    "score_latents": score_latents,
    "match_latents": encode_score,
    "pair_mirrors": encode_score,
    "explain_difference": encode_score,
    "promote_tokens": promote_tokens,
    "collect_examples": collect_examples,
    "evaluate_behaviour": evaluate_behaviour,
    "compare_predictions": compare_predictions,
    "generate_answers": generate_answers,
    "weigh_documents": encode_score,
    "show_carriers": show_carriers,
    "patch_latents": patch_models,
    "ablate_categories": patch_models,
    "select_contexts": table,
    "explain_lexical": table,
    "build_requests": ask_annotators,
    "build_label_requests": read_text,
    "parse_responses": ask_annotators,
}
"""Step: what its jobs request. Other steps are small and take the profile's default."""


def request(config: Config, step: str) -> JobRequest:
    """Return what a job of ``step`` requests at its first attempt."""
    return REQUESTS[step](config)
