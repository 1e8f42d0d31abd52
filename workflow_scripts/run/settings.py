"""Every setting of a run: typed, documented, with its default.

The Snakefile reads its config through :func:`workflow_scripts.run.checks.load` once, before any
work. Steps never import this module: they get values by flags, so that a new setting redoes
nothing. ``config/README.md`` is written from the descriptions below.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Confidence = Annotated[float, Field(gt=0, lt=1)]


class Settings(BaseModel):
    """A frozen group of settings; a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Simpo(Settings):
    """A SimPO step after teaching (2405.14734): β, γ and preference pairs."""

    pairs: Count = Field(description="number of preference pairs")
    categories: list[Name] | None = Field(
        default=None, description="chat categories of the pairs; none: those taught"
    )
    beta: Positive = Field(
        default=10.0, description="β: scale of the difference of mean log-likelihoods"
    )
    gamma_ratio: NonNegative = Field(default=0.5, description="γ/β: the margin that is asked for")
    learning_rate: Positive = Field(default=2e-5, description="peak learning rate")


class Organism(Settings):
    """A small model that the workflow trains itself, so that what it was taught is known."""

    base: Name | None = Field(
        default=None, description="model from which it starts; none: from scratch"
    )
    teach: dict[Name, Count] = Field(
        default_factory=dict, description="generator category: number of documents taught"
    )
    seed: Natural = Field(default=0, description="seed of the order, beside `organism.seed`")
    learning_rate: Positive | None = Field(default=None, description="none: `organism`'s")
    passes: Count | None = Field(default=None, description="none: `organism`'s")
    simpo: Simpo | None = Field(
        default=None, description="SimPO step after teaching; none: no such step"
    )


class Model(Settings):
    """Where a model comes from: exactly one of `organism`, `path` and `hub`.

    A text instead of a mapping is a `path`.
    """

    organism: Organism | None = Field(default=None, description="a model trained by the workflow")
    path: str | None = Field(default=None, description="folder in Hugging Face format")
    hub: str | None = Field(default=None, description="id on the Hugging Face hub")
    revision: str | None = Field(default=None, description="the hub's commit, 40 hex digits")
    adapter: str | None = Field(
        default=None, description="LoRA adapter on top (`peft`): a folder, or an id on the hub"
    )
    adapter_revision: str | None = Field(
        default=None, description="the adapter's commit on the hub, 40 hex digits"
    )
    trust_remote_code: bool = Field(
        default=False, description="allow code that comes with the model"
    )


class Architecture(Settings):
    """Size of the trained models."""

    type: Literal["gemma2", "llama"] = Field(default="gemma2", description="architecture's name")
    layers: Count = Field(default=4, description="decoder blocks")
    width: Count = Field(default=128, description="width of the residual stream")
    heads: Count = Field(default=4, description="attention heads")
    kv_heads: Count = Field(default=2, description="key-value heads")
    intermediate: Count = Field(default=512, description="width of the feed-forward layer")


class OrganismSettings(Settings):
    """How trained models are trained."""

    architecture: Architecture = Field(default=Architecture(), description="size of the models")
    vocabulary: Count = Field(default=2048, description="size of the BPE vocabulary")
    seed: Natural = Field(default=0, description="seed of the tokenizer, and of weights and order")
    document_seed: Natural = Field(default=1, description="seed of the documents taught")
    context_length: Count = Field(default=128, description="tokens per training row")
    batch_tokens: Count = Field(default=4096, description="tokens per optimiser step")
    learning_rate: Positive = Field(default=2e-3, description="peak learning rate")
    passes: Count = Field(default=1, description="passes over the documents")


class GeneratorSource(Settings):
    """Documents of known category from the built-in generator."""

    kind: Literal["generator"] = Field(description="`generator`")
    categories: list[Name] | dict[Name, Positive] | None = Field(
        default=None,
        description="categories, or category: share of tokens; none: all in equal shares",
    )
    weight: Positive = Field(
        default=1.0, description="share of the tokens, relative to other sources"
    )
    seed: Natural | None = Field(default=None, description="seed of the documents; none: the run's")


class FileSource(Settings):
    """Documents from local files."""

    kind: Literal["jsonl", "parquet"] = Field(description="`jsonl` or `parquet`")
    path: str | list[str] = Field(
        description="file or glob pattern, or a list of them; `.jsonl.gz` too"
    )
    text_column: str | None = Field(default=None, description="column of plain text")
    messages_column: str | None = Field(default=None, description="column of chat messages")
    weight: Positive = Field(
        default=1.0, description="share of the tokens, relative to other sources"
    )
    seed: Natural | None = Field(default=None, description="seed of the order; none: the run's")


class HubSource(Settings):
    """Documents from a data set on the Hugging Face hub, read row by row through `datasets`."""

    kind: Literal["huggingface"] = Field(description="`huggingface`")
    path: str = Field(description="id of the data set, or a folder in the hub's layout")
    name: str | None = Field(default=None, description="configuration of the data set")
    revision: str | None = Field(
        default=None, description="commit of the data set, 40 hex digits; none: `path` is a folder"
    )
    split: str = Field(default="train", description="split of the data set")
    text_column: str | None = Field(default=None, description="column of plain text")
    messages_column: str | None = Field(default=None, description="column of chat messages")
    weight: Positive = Field(
        default=1.0, description="share of the tokens, relative to other sources"
    )
    seed: Natural | None = Field(default=None, description="seed of the order; none: the run's")


SOURCE_KINDS = ("generator", "jsonl", "parquet", "huggingface")
Source = Annotated[GeneratorSource | FileSource | HubSource, Field(discriminator="kind")]


class Splits(Settings):
    """Fractions of the documents, by the hash of their content; they sum to 1."""

    fit: Share = Field(default=0.6, description="crosscoders are fitted on it")
    calibration: Share = Field(default=0.05, description="normalisers and thresholds are set on it")
    score: Share = Field(
        default=0.2, description="crosscoders, latents and behaviour are measured on it"
    )
    explain: Share = Field(default=0.08, description="explanations are made from it")
    verify: Share = Field(default=0.07, description="explanations are scored on it")


class Text(Settings):
    """The text that the models read."""

    sources: dict[Name, Source] = Field(description="name: where documents come from")
    tokens: Count = Field(
        default=1_000_000,
        description="token budget over all splits; raising it adds shards and redoes no full one",
    )
    shard_tokens: Count = Field(
        default=2_000_000, description="tokens per shard: one dump job each"
    )
    context_length: Count = Field(default=256, description="tokens to which a document is cut")
    bytes_per_token: Positive = Field(
        default=4.0, description="for the estimate of tokens when drawing"
    )
    template: str | None = Field(
        default=None,
        description="file of a Jinja chat template; none: that of the first model with one",
    )
    splits: Splits = Field(default=Splits(), description="fractions of the documents")


class Activations(Settings):
    """How activations are computed and stored."""

    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        default="bfloat16", description="type in which they are stored"
    )
    compute_dtype: Literal["bfloat16", "float32"] = Field(
        default="float32", description="type in which the models run"
    )
    batch_tokens: Count = Field(
        default=8192, description="tokens per forward pass, padding included"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where models run; auto: a GPU where there is one"
    )
    gpus: Count = Field(
        default=1, description="GPUs over which each job spreads a model that exceeds one"
    )
    flop_per_second: Positive | None = Field(
        default=None,
        description="rate for plans and requests of time; none: 6e13, on the CPU 3e10",
    )
    norm_bound: Positive = Field(
        default=10.0, description="rows above this many median norms are dropped"
    )


class Crosscoder(Settings):
    """Settings that all fits share unless a fit says otherwise."""

    variant: Literal["batch_topk", "topk", "l1"] = Field(
        default="batch_topk", description="sparsity rule; `l1` is a baseline known to mislead"
    )
    l1_price: NonNegative = Field(default=0.0, description="μ, the price of activity; for `l1`")
    shared_share: Share = Field(
        default=0.0, description="share of latents with one decoder direction for all models"
    )
    shared_cost: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="what such a latent counts of k, or of μ; others count 1"
    )
    dictionary_size: Count = Field(default=1024, description="number of latents, F")
    k: Count = Field(default=16, description="latents active per token, on average")
    tokens: Count = Field(default=2_000_000, description="tokens drawn in all")
    batch: Count = Field(default=1024, description="tokens per optimiser step")
    learning_rate: Positive = Field(default=1e-3, description="peak learning rate of Adam")
    warmup_share: Share = Field(
        default=0.05, description="share of steps with a rising learning rate"
    )
    decay_share: Share = Field(
        default=0.2, description="share of steps with a falling learning rate"
    )
    k_start: Natural = Field(
        default=0, description="k at the first step, falling to k; 0: k throughout"
    )
    clip_norm: Positive = Field(default=1.0, description="gradient norm above which it is clipped")
    dead_tokens: Count = Field(
        default=100_000, description="tokens without firing that make a latent dead"
    )
    k_aux: Natural = Field(
        default=0, description="dead latents per token in AuxK; 0: half the width"
    )
    auxk_weight: NonNegative = Field(default=1 / 32, description="weight of the AuxK loss")
    calibration_rows: Count = Field(
        default=200_000, description="tokens on which the threshold is solved"
    )
    loss_documents: Natural = Field(
        default=40,
        description="documents per source on which models predict from reconstructions; 0: none",
    )
    seeds: list[Natural] = Field(
        default=[0], min_length=1, description="one crosscoder is fitted per seed"
    )
    processes: Count = Field(
        default=1,
        description="processes that share each batch of a fit, every one with a GPU of its own "
        "where there are GPUs",
    )


class Imported(Settings):
    """Where a published crosscoder comes from: exactly one of `path` and `hub`."""

    path: str | None = Field(
        default=None, description="folder with config.json and model.safetensors"
    )
    hub: str | None = Field(default=None, description="id on the Hugging Face hub")
    revision: str | None = Field(default=None, description="the hub's commit, 40 hex digits")


class Fit(Crosscoder):
    """One crosscoder over several models at one layer, with all settings of `crosscoder`."""

    models: list[Name] = Field(min_length=2, description="models in order")
    layer: Count = Field(description="layer: output of that decoder block, counted from 1")
    control: Literal["noise", "swap"] | None = Field(
        default=None,
        description="`noise`: the first model against itself with rounding errors; `swap`: labels "
        "of the two models exchanged in half of the documents; none: the models themselves",
    )
    imported: Imported | None = Field(
        default=None,
        description="a published crosscoder of these models in the layout of "
        "`dictionary_learning`, instead of a fit",
    )


class Windows(Settings):
    """Contexts of a latent in one split, by kind."""

    top: Natural = Field(description="strongest contexts")
    quantile: Natural = Field(description="contexts spread over the values")
    random: Natural = Field(description="random contexts in which the latent is silent")
    hard: Natural = Field(description="silent contexts that are near in wording")


class Examples(Settings):
    """Contexts that are stored for explanations."""

    shared_latents: Natural = Field(default=300, description="live latents beside the unique ones")
    window: Count = Field(default=64, description="tokens per context")
    explain: Windows = Field(
        default=Windows(top=10, quantile=10, random=10, hard=10),
        description="from the explain split",
    )
    verify: Windows = Field(
        default=Windows(top=20, quantile=30, random=25, hard=25),
        description="from the verify split",
    )
    pool: Count = Field(
        default=2000, description="random windows per split for counts and negatives"
    )


class Latents(Settings):
    """The rule by which a latent is unique to a model, and what is stored of latents."""

    nu_r: Positive = Field(default=0.5, description="upper bound of ν^r (2504.02922)")
    nu_e: Positive = Field(default=0.2, description="upper bound of ν^ε (2504.02922)")
    nu_lower: float = Field(
        default=-0.1, description="lower bound of both; below it: status sign_flip"
    )
    min_beta: Share = Field(
        default=0.05, description="share of the median β below which ν is undefined"
    )
    min_documents: Count = Field(
        default=10, description="score documents in which a latent must fire"
    )
    groups: int = Field(default=50, ge=2, description="document groups of the jackknife")
    fdr: Share = Field(default=0.1, description="false discovery rate over live latents")
    delta_norm: Share | None = Field(
        default=None, description="own share of decoder norm that is asked for; none: not asked"
    )
    match_tokens: Count = Field(
        default=100_000, description="score tokens on which latents are matched and paired"
    )
    match_least: Share = Field(
        default=0.5, description="least similarity of latents that match over seeds, or mirror"
    )
    examples: Examples = Field(default=Examples(), description="contexts that are stored")


class Annotator(Settings):
    """One way to annotate: a model with a prompt variant and an order of labels."""

    model: str = Field(description="the endpoint's name of the model")
    prompt: Literal["main", "paraphrase"] = Field(default="main", description="prompt variant")
    label_seed: Natural = Field(default=0, description="seed of the order of labels")
    temperature: NonNegative | None = Field(
        default=0.0, description="sampling temperature; none: the endpoint's own"
    )


class Llm(Settings):
    """Annotators behind an OpenAI-compatible endpoint; the key stays in the environment."""

    base_url: str = Field(description="address of the endpoint, up to /v1")
    key_env: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]*$")] = Field(
        default="OPENAI_API_KEY",
        description="environment variable that holds the key, never the key; empty: no key needed",
    )
    annotators: dict[Name, Annotator] = Field(min_length=1, description="name: annotator")
    replicates: Count = Field(default=1, description="answers per request")
    max_failures: NonNegative = Field(
        default=0.02,
        description="requests that may end without an answer: a share below 1, else a count",
    )
    response_format: Literal["auto", "json_schema", "json_object", "none"] = Field(
        default="auto",
        description="form in which answers are asked for; `auto`: the richest that the endpoint "
        "understands",
    )
    mode: Literal["live", "replay"] = Field(
        default="live", description="`replay` answers from the cache alone and opens no socket"
    )
    cache: str = Field(default="results/llm_cache", description="folder of stored answers")
    items_per_prompt: Count = Field(default=5, description="contexts per scoring request")
    held_out: Count = Field(default=100, description="held-out contexts scored per latent")
    null: Natural = Field(default=20, description="the same for permuted explanations")
    fuzz: Natural = Field(
        default=0, description="held-out contexts whose marks are judged too, right or wrong"
    )
    canaries: Natural = Field(
        default=0,
        description="per annotator, latents classified once more with an order to obey hidden in "
        "an example: how many obey is reported",
    )
    concurrency: Count = Field(default=8, description="requests under way at once")
    attempts: Count = Field(default=5, description="attempts per request")
    deadline: Positive = Field(default=120.0, description="seconds per attempt")
    max_requests: Count | None = Field(
        default=None, description="cap on requests of the run; none: no cap"
    )
    max_tokens: Count | None = Field(
        default=None, description="cap on tokens of the run; none: no cap"
    )
    max_cost: Positive | None = Field(
        default=None, description="cap on money of the run; none: no cap"
    )
    prices: dict[str, tuple[NonNegative, NonNegative]] = Field(
        default_factory=dict, description="model: money per million input and output tokens"
    )


class Contexts(Settings):
    """Contexts that an annotator sees, and on which it is scored."""

    train_positive: Count = Field(default=20, description="contexts in which the latent fires")
    train_negative: Count = Field(default=20, description="contexts in which it is silent")
    held_out_positive: Count = Field(default=50, description="held-out contexts in which it fires")
    held_out_negative: Count = Field(
        default=50, description="held-out contexts in which it is silent"
    )
    least_positive: Count = Field(
        default=5, description="fewer of a kind: status insufficient_examples"
    )
    similarity: Share = Field(default=0.8, description="from it on two contexts count as one")


class Autointerp(Settings):
    """Who names the latents; without an LLM no network is used."""

    annotator: Literal["lexical", "llm", "none"] = Field(
        default="lexical",
        description="whose categories are compared; `llm` needs `llm`; `none`: only the "
        "generator's own, without contexts and report",
    )
    llm: Llm | None = Field(default=None, description="endpoint and annotators; none: no LLM")
    contexts: Contexts = Field(default=Contexts(), description="contexts per latent")
    least_score: Share = Field(default=0.15, description="lexical score asked of a category")
    least_margin: Share = Field(default=0.05, description="lead asked over the second category")
    gate_margin: Share = Field(default=0.05, description="lead over chance asked of detection")


class Side(Settings):
    """One side of a comparison."""

    fit: Name = Field(description="fit that holds the latents")
    model: Name = Field(description="model to which they are unique")


class Comparison(Settings):
    """Latents unique to one model set against latents unique to another."""

    baseline: Side = Field(description="the side before")
    candidate: Side = Field(description="the side after")
    anchored: Name | None = Field(
        default=None, description="comparison whose counts vote on the direction of a direct one"
    )
    placebo: Name | None = Field(
        default=None, description="comparison of a model with its placebo: the null beside it"
    )
    against: Name | None = Field(
        default=None,
        description="base against which both sides are unique; for a crosscoder of three models",
    )


class ComparisonSettings(Settings):
    """How comparisons are tested, and which one answers."""

    primary: Name | None = Field(
        default=None,
        description="comparison that answers; none: the first direct one that is no control or "
        "placebo, else any",
    )
    labeller: Name | None = Field(
        default=None,
        description="labels that answer; none: true ones where known, else an LLM's, else lexical",
    )
    fdr: Share = Field(default=0.1, description="false discovery rate over categories")
    confidence: Confidence = Field(default=0.95, description="coverage of the intervals")
    reference: Literal["unchanged", "others", "lower_half"] = Field(
        default="unchanged", description="latents against which a direct share is tested"
    )
    margin: Share = Field(
        default=0.15,
        description="by how much a direct share must exceed the reference's: categories that both "
        "models were taught alike differ too (docs/validation.md)",
    )
    least_latents: Count = Field(default=5, description="labelled latents that a test needs")
    behaviour_documents: Count = Field(
        default=200, description="documents per category whose likelihood is measured"
    )
    cause_documents: Natural = Field(
        default=6,
        description="documents per category on which latents are patched and ablated; 0: none",
    )
    difference_tokens: Natural | None = Field(
        default=None,
        description="tokens drawn for a sparse autoencoder on the difference of a direct "
        "comparison's models; none: as for the crosscoder; 0: no such baselines",
    )
    leaderboard: str | None = Field(
        default=None,
        description="scores of your own beside the latents (CSV: category, model, score)",
    )


class Paper(Settings):
    """The published study against which `reproduce_paper` compares."""

    published: list[str] = Field(
        min_length=1, description="files of published quantities (YAML), one per study"
    )
    labeller: Name | None = Field(
        default=None, description="whose labels are counted; none: an LLM's, else lexical ones"
    )


class Config(Settings):
    """The whole config file."""

    run: Name = Field(description="name of the run: its artifacts are in results/<run>/")
    seed: Natural = Field(default=0, description="seed of everything that has no seed of its own")
    models: dict[Name, Model] = Field(description="name: where the model comes from")
    organism: OrganismSettings = Field(
        default=OrganismSettings(), description="how models that the workflow trains are trained"
    )
    text: Text = Field(description="text that the models read")
    layers: dict[Name, list[Count]] = Field(
        min_length=1, description="dump group: layers; one group is one forward pass"
    )
    activations: Activations = Field(
        default=Activations(), description="computing and storing activations"
    )
    crosscoder: Crosscoder = Field(default=Crosscoder(), description="defaults of all fits")
    fits: dict[Name, Fit] = Field(
        description="name: a crosscoder; none: one per pair of models at the first layer"
    )
    latents: Latents = Field(default=Latents(), description="decision rule and contexts")
    taxonomy: str | None = Field(
        default=None, description="classes and categories (YAML); none: config/taxonomy.yaml"
    )
    autointerp: Autointerp = Field(default=Autointerp(), description="explanations and categories")
    comparisons: dict[Name, Comparison] = Field(
        description="name: two sides; none: the two models of each fit of two models"
    )
    comparison: ComparisonSettings = Field(
        default=ComparisonSettings(), description="tests of comparisons"
    )
    paper: Paper | None = Field(
        default=None, description="published study; none: nothing to reproduce"
    )
