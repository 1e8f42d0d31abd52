"""Settings of explanations: who names the latents, and from what."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, JsonValue, field_validator

from workflow_scripts.common.cli import quoted
from workflow_scripts.common.settings import (
    Count,
    Name,
    Natural,
    NonNegative,
    Positive,
    Settings,
    Share,
)
from workflow_scripts.common.taxonomy import UNASSIGNED

Purpose = Literal["explain", "classify", "score"]
"""What an LLM must give: an explanation, a category, or in which contexts a latent fires."""
TABLE_OF: dict[Purpose, str] = {"explain": "explanations", "classify": "labels", "score": "scores"}
"""The table that the answers of a purpose become."""
AnyPurpose = Literal[Purpose, "label"]
"""Those, and the category of a document."""
LABEL: AnyPurpose = "label"

MAX_OUTPUT: dict[AnyPurpose, Count] = {
    "explain": 300,
    "classify": 400,
    "score": 400,
    "label": 400,
}
"""Tokens of an answer at most, where the config says nothing else."""


Variant = Literal["main", "paraphrase"]
"""Which wording of the prompts."""
MOST_CATEGORIES, LONGEST_CATEGORY = 100, 64
"""Names that a user may give, and characters of one: endpoints limit the schema of an answer."""

OWN_FIELDS = {
    "model": "model",
    "temperature": "temperature",
    "max_tokens": "autointerp.llm.max_output",
    "max_completion_tokens": "autointerp.llm.max_output",
    "response_format": "autointerp.llm.response_format",
    "seed": "the config's seed",
    "n": "replicates",
}
"""Fields of a request's body that `extra_body` may not hold, and what sets them."""


def _names(value: JsonValue) -> list[str]:
    """Return all names within a value."""
    if isinstance(value, list):
        return [name for part in value for name in _names(part)]
    if not isinstance(value, dict):
        return []
    return [*value, *(name for part in value.values() for name in _names(part))]


def _extra_body(body: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return further fields of a request; those that other settings give are refused."""
    for name in body:
        if name in OWN_FIELDS:
            raise ValueError(f"must not hold {name}: {OWN_FIELDS[name]} sets it")
        if name in ("messages", "stream", "stream_options", "tools", "functions"):
            raise ValueError(f"must not hold {name}, which decides what is asked or how it comes")
    if re.search("(?i)key|secret|password|authorization", " ".join(_names(body))) or re.search(
        r"(?i)\b(?:sk-|bearer )[\w.-]{6,}", str(body)
    ):
        raise ValueError("must hold no key: it is written to files; use autointerp.llm.headers")
    return body


class Annotator(Settings):
    """One way to annotate: a model with a prompt variant and an order of labels."""

    model: str
    """the endpoint's name of the model"""
    prompt: Variant = "main"
    """prompt variant"""
    label_seed: Natural = 0
    """seed of the order of labels"""
    temperature: NonNegative | None = 0.0
    """sampling temperature; none: the endpoint's own"""
    extra_body: Annotated[dict[str, JsonValue], AfterValidator(_extra_body)] = Field(
        default_factory=dict
    )
    """further fields of each request, such as `{reasoning_effort: low}` or
    `{chat_template_kwargs: {enable_thinking: false}}`"""


class Price(NamedTuple):
    """Money per million tokens."""

    input: NonNegative
    output: NonNegative

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Return the price of so many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


class Replicates(Settings):
    """How often each annotator answers."""

    replicates: Count = 1
    """answers per request"""


class PromptCounts(Replicates):
    """How many requests there are about each latent."""

    items_per_prompt: Count = 5
    """contexts per scoring request"""
    held_out: Count = 100
    """held-out contexts scored per latent"""
    null: Natural = 20
    """the same, with other latents' explanations"""
    fuzz: Natural = 0
    """held-out contexts in which the marked tokens are also judged, right or wrong"""
    canaries: Natural = 0
    """latents per annotator that are classified again with an instruction hidden in an example; the
    report says how many answers obey it"""


class Failures(Settings):
    """How many answers may be missing before the stage stops."""

    max_failures: NonNegative = 0.02
    """requests that may end without an answer: a share below 1, else a count"""
    max_unexplained: NonNegative = 0.2
    """the same for requests to explain that the model did answer, but not with an explanation: the
    latent then stays without one"""


def _variable(name: str) -> str:
    """Return the name of an environment variable; another text may be a key, and is not shown."""
    if not re.fullmatch("[A-Z0-9_]*", name):
        raise ValueError("must be the name of an environment variable, not the key itself")
    return name


def _without_password(address: str) -> str:
    """Return an address; one with a user or password is not shown: commands and records hold it."""
    if re.match("[^/]*//[^/?#]*@", address):
        raise ValueError(
            "must hold no user and no password: leave them out, the key stays in the environment"
        )
    return address


def _header(name: str) -> str:
    """Return the name of a header that a request may have beside its own."""
    if not re.fullmatch("[A-Za-z0-9-]+", name):
        raise ValueError("must be the name of a header")
    if name.lower() in ("host", "content-type", "content-length", "transfer-encoding"):
        raise ValueError("is set by the client")
    return name


def _header_variable(name: str) -> str:
    """Return the variable of a header's value; it is never empty."""
    if not name:
        raise ValueError("must name the environment variable that holds the header's value")
    return _variable(name)


HeaderName = Annotated[str, AfterValidator(_header)]
Variable = Annotated[str, AfterValidator(_header_variable)]


class Connection(Settings):
    """Where requests go; the key stays in the environment."""

    base_url: Annotated[str, AfterValidator(_without_password)]
    """address of the endpoint, up to /v1"""
    key_env: Annotated[str, AfterValidator(_variable)] = "OPENAI_API_KEY"
    """environment variable that holds the key, never the key; empty: no key needed"""
    mode: Literal["live", "replay"] = "live"
    """`replay` answers from the cache alone and opens no socket"""
    cache: str = "results/llm_cache"
    """folder of stored answers"""
    response_format: Literal["auto", "json_schema", "json_object", "none"] = "auto"
    """form of the answers; `auto`: the richest that the endpoint understands"""


class Calls(Settings):
    """How requests are sent; it changes no answer."""

    concurrency: Count = 8
    """requests under way at once"""
    requests_per_minute: Positive | None = None
    """rate that the endpoint allows; none: no limit"""
    attempts: Count = 5
    """attempts per request"""
    deadline: Positive | None = None
    """seconds per attempt; none: 120, and more where answers are measured to take long"""
    loading: NonNegative = 600.0
    """seconds that a server which says that it loads its model is waited for"""
    least_prompt: Share = 0.8
    """prompt tokens that an endpoint must count, as a share of the estimate; below it cuts prompts,
    and the run stops. 0: no check"""


class Retries(Settings):
    """How a run handles failed requests; not part of the config."""

    retry_share: NonNegative = 0.2
    """retries of the whole run, as a share of its requests (at least 20)"""
    longest_wait: Positive = 120.0
    """seconds; if the endpoint requests a longer pause, the run stops"""
    first_backoff: Positive = 0.5
    """seconds before the second attempt, at most; twice as many before each further one"""
    longest_backoff: Positive = 30.0
    """seconds before any attempt, at most"""


class SpendingCaps(Settings):
    """The most that a run may spend."""

    max_requests: Count | None = None
    """cap on requests of the run; none: no cap"""
    max_tokens: Count | None = None
    """cap on tokens of the run; none: no cap"""
    max_cost: Positive | None = None
    """cap on money of the run; none: no cap"""


class DocumentSample(Settings):
    """Which documents an LLM labels, and how much of each it reads."""

    sample: Natural = 2000
    """documents of the score split that are labelled, drawn in proportion to their other labels;
    0: none"""
    characters: Count = 1500
    """characters of a document that are shown, from its beginning"""


class DocumentLabels(DocumentSample):
    """What an LLM calls documents; a label counts where most of its annotators agree."""

    categories: dict[str, str] | list[str] | None = None
    """labels to choose from: names, or name: what belongs to it; none: the categories of the
    taxonomy"""

    @field_validator("categories")
    @classmethod
    def _distinct(cls, categories: Collection[str] | None) -> Collection[str] | None:
        names = list(categories or ())
        if categories is not None and len(names) < 2:
            raise ValueError("needs two names or more: add some, or leave it out")
        if len(names) > MOST_CATEGORIES:
            raise ValueError(f"has {len(names)} names, above {MOST_CATEGORIES}: merge some")
        for name in names:
            if name != " ".join(name.split()) or not name.isprintable() or not name:
                raise ValueError(f"has the name {quoted(name)}: give plain words on one line")
            if len(name) > LONGEST_CATEGORY:
                raise ValueError(f"has the name {quoted(name)}: shorten it to 64 characters")
            if name == UNASSIGNED:
                raise ValueError(f"has the reserved name {UNASSIGNED}: give it another name")
            if names.count(name) > 1:
                raise ValueError(f"has {quoted(name)} twice: name each once")
        return categories

    @property
    def described(self) -> dict[str, str]:
        """What belongs to each of the user's categories, by name; empty for the taxonomy's."""
        if isinstance(self.categories, dict):
            return self.categories
        return dict.fromkeys(self.categories or (), "")


class Llm(SpendingCaps, Calls, PromptCounts, Failures, Connection):
    """Annotators behind an OpenAI-compatible endpoint; the key stays in the environment."""

    annotators: dict[Name, Annotator] = Field(min_length=1)
    """name: annotator"""
    prices: dict[str, Price] = Field(default_factory=dict)
    """model: money per million input and output tokens"""
    documents: DocumentLabels = DocumentLabels()
    """labels of documents"""
    max_output: Count | dict[AnyPurpose, Count] = Field(default_factory=dict)
    """tokens of an answer at most, thoughts included: a number, or one per purpose such as
    `{explain: 4000}`; without one 300 to explain, else 400"""
    headers: dict[HeaderName, Variable] = Field(default_factory=dict)
    """further headers of each request: name: environment variable that holds the value"""

    @property
    def output_limits(self) -> dict[AnyPurpose, Count]:
        """The most tokens of an answer, per purpose."""
        own = self.max_output
        return {**MAX_OUTPUT, **own} if isinstance(own, dict) else dict.fromkeys(MAX_OUTPUT, own)


class ContextCounts(Settings):
    """Contexts that an annotator sees, and on which it is scored."""

    train_positive: Count = 20
    """contexts in which the latent fires"""
    train_negative: Count = 20
    """contexts in which it is silent"""
    held_out_positive: Count = 50
    """held-out contexts in which it fires"""
    held_out_negative: Count = 50
    """held-out contexts in which it is silent"""
    least_positive: Count = 5
    """fewer of a kind: status insufficient_examples"""
    similarity: Share = 0.8
    """similarity from which two contexts count as one"""


class CategoryRule(Settings):
    """When the lexical annotator names a category; below, the latent stays `unassigned`."""

    least_score: Share = 0.15
    """lexical score that a category needs"""
    least_margin: Share = 0.05
    """lead over the second category that it needs"""


class GateMargin(Settings):
    """When an explanation counts as good."""

    gate_margin: Share = 0.05
    """lead over chance that detection needs"""


class Autointerp(GateMargin, CategoryRule):
    """Who names the latents; without an LLM no network is used."""

    annotator: Literal["lexical", "llm", "none"] = "lexical"
    """whose categories are compared; `llm` needs `llm`; `none`: only the generator's own, without
    contexts and report"""
    llm: Llm | None = None
    """endpoint and annotators; none: no LLM"""
    contexts: ContextCounts = ContextCounts()
    """contexts per latent"""
