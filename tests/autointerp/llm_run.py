"""The LLM path as Snakemake would run it, against a given endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.autointerp import fixtures
from tests.common.test_taxonomy import SHIPPED
from workflow_scripts.autointerp import (
    build_requests,
    call_llm,
    collect_annotations,
    measure_agreement,
    parse_responses,
    select_contexts,
)

KEY_ENV = "DIFFSCOPE_TEST_KEY"
ANNOTATORS: dict[str, dict[str, object]] = {
    "first": {"model": "fake", "prompt": "main", "label_seed": 0},
    "second": {"model": "fake", "prompt": "paraphrase", "label_seed": 1},
}
CONCEPTS = {
    "sea": ("anchor", "harbour"),
    "code": ("lambda", "import"),
    "storm": ("thunder", "lightning"),
    "bread": ("bakery", "dough"),
}


def make_contexts(
    folder: Path,
    latents: int = 4,
    documents: int = 300,
    owners: Sequence[str] = (),
    more: Sequence[str] = (),
) -> None:
    """Write `contexts.parquet` and `latents.parquet` of planted word latents, of some models.

    ``more`` are further flags of select_contexts.
    """
    texts = fixtures.random_documents(documents, CONCEPTS)
    planted = [fixtures.on_words(name, *CONCEPTS[name]) for name in list(CONCEPTS)[:latents]]
    for place, owner in enumerate(owners):
        planted[place] = replace(planted[place], unique_to=owner)
    examples, _ = fixtures.make_examples(texts, planted, folder, background=50)
    code = select_contexts.main(
        [
            *("--examples", str(examples), "--seed", "0"),
            *("--contexts", str(folder / "contexts.parquet")),
            *("--latents", str(folder / "latents.parquet")),
            *more,
        ]
    )
    assert code == 0


@dataclass
class Run:
    """One run's folder, endpoint and settings."""

    data: Path
    out: Path
    url: str
    cache: Path
    annotators: dict[str, dict[str, object]] = field(
        default_factory=lambda: {"first": ANNOTATORS["first"]}
    )
    held_out: int = 20
    null: int = 10
    replicates: int = 1
    more: tuple[str, ...] = ()
    """Further flags of build_requests."""
    flags: tuple[str, ...] = ("--first-backoff", "0.02")
    limits: dict[str, int] = field(default_factory=dict)
    prices: str = "{}"
    code: str = "0"
    seed: int = 0

    def build(self, purpose: str) -> int:
        """Build the requests of one purpose."""
        explained = (
            [] if purpose == "explain" else ["--explanations", str(self.llm("explanations"))]
        )
        return build_requests.main(
            [
                *("--purpose", purpose, "--seed", str(self.seed)),
                *("--contexts", str(self.data / "contexts.parquet")),
                *("--latents", str(self.data / "latents.parquet")),
                *("--taxonomy", str(SHIPPED), "--annotators", json.dumps(self.annotators)),
                *("--held-out", str(self.held_out), "--null", str(self.null)),
                *("--replicates", str(self.replicates), "--prices", self.prices),
                *("--code", self.code, "--limits", json.dumps(self.limits)),
                *("--requests", str(self.file(purpose, "requests.jsonl"))),
                *("--plan", str(self.file(purpose, "plan.json"))),
                *self.more,
                *([] if purpose == "explain" else explained),
            ]
        )

    def call_flags(self, purpose: str, *flags: str) -> list[str]:
        """Return the command line of the calling step; of a repeated flag the last one counts."""
        words = [
            *("--requests", str(self.file(purpose, "requests.jsonl"))),
            *("--responses", str(self.file(purpose, "responses.jsonl"))),
            *("--ledger", str(self.file(purpose, "ledger.csv"))),
            *("--manifest", str(self.file(purpose, "manifest.json"))),
            *("--cache", str(self.cache), "--base-url", self.url, "--key-env", KEY_ENV),
            *("--headers", "{}", "--prices", self.prices, *self.flags, *flags),
        ]
        last: dict[str, list[str]] = {}
        for word in words:
            if word.startswith("--"):
                name, last[word] = word, []
            else:
                last[name].append(word)
        return [word for name, values in last.items() for word in (name, *values)]

    def call(self, purpose: str, *flags: str) -> int:
        """Call the endpoint."""
        return call_llm.main(self.call_flags(purpose, *flags))

    def parse(self, purpose: str, *flags: str) -> int:
        """Parse the responses."""
        name = {"explain": "explanations", "classify": "labels", "score": "scores"}[purpose]
        return parse_responses.main(
            [
                *("--purpose", purpose, "--taxonomy", str(SHIPPED)),
                *("--requests", str(self.file(purpose, "requests.jsonl"))),
                *("--responses", str(self.file(purpose, "responses.jsonl"))),
                *("--latents", str(self.data / "latents.parquet")),
                *("--annotators", *self.annotators),
                *("--replicates", str(self.replicates)),
                *("--output", str(self.llm(name))),
                *("--summary", str(self.file(purpose, "summary.json"))),
                *flags,
            ]
        )

    def purpose(self, purpose: str) -> int:
        """Build, call and parse; return the first exit code that is not 0."""
        return self.build(purpose) or self.call(purpose) or self.parse(purpose)

    def everything(self) -> None:
        """Run all purposes."""
        for purpose in ("explain", "classify", "score"):
            assert self.purpose(purpose) == 0

    def collect(self, lexical: Path) -> None:
        """Put the tables together with the lexical ones and measure agreement."""
        code = collect_annotations.main(
            [
                *("--lexical", str(lexical), "--llm", str(self.out / "llm")),
                *("--taxonomy", str(SHIPPED), "--output", str(self.out), "--seed=0"),
                "--ledgers",
                *(str(self.file(p, "ledger.csv")) for p in ("explain", "classify", "score")),
            ]
        )
        assert code == 0
        code = measure_agreement.main(
            [
                *("--labels", str(self.out / "labels.parquet")),
                *("--output", str(self.out / "agreement.json"), "--seed=0"),
            ]
        )
        assert code == 0

    def file(self, purpose: str, name: str) -> Path:
        """Return a file of one purpose."""
        return self.out / purpose / name

    def llm(self, name: str) -> Path:
        """Return a parsed table."""
        return self.out / "llm" / f"{name}.parquet"
