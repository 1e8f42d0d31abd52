"""Build the requests to the annotators for one purpose: explain, classify or score.

Opens no socket. Writes `requests.jsonl` and `plan.json` (calls and tokens, and money where prices
are given). Explanations must exist before classify and score, since their prompts quote them.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts import cli, files
from workflow_scripts.autointerp import prompts
from workflow_scripts.autointerp.contexts import Context, ContextTable, contexts_digest
from workflow_scripts.autointerp.plan import Price, plan_requests
from workflow_scripts.autointerp.requests import (
    Annotator,
    Header,
    Request,
    parse_annotators,
    read_requests,
    write_requests,
)
from workflow_scripts.autointerp.select_contexts import HARD, HELD_OUT, OK, POSITIVE, TRAIN
from workflow_scripts.autointerp.statistics import derangement
from workflow_scripts.autointerp.taxonomy import RESERVED, Taxonomy, load_taxonomy

MAX_OUTPUT = {"explain": 300, "classify": 400, "score": 400}


@dataclass(frozen=True)
class Shape:
    """How much of the contexts goes into the prompts."""

    train_active: int = 20
    train_silent: int = 10
    classify_examples: int = 5
    items_per_prompt: int = 5
    held_out: int = 100
    """Held-out contexts scored per latent, half of them active."""
    null: int = 20
    """The same for the permuted explanations."""
    replicates: int = 1


@dataclass(frozen=True)
class Subject:
    """One (annotator, replicate, latent) with its explanation, where there is one."""

    annotator: Annotator
    replicate: int
    latent: int
    explanation: str = ""


def build_requests(
    purpose: str,
    contexts: Path,
    latents: Path,
    taxonomy: Path,
    explanations: Path | None,
    annotators: Sequence[Annotator],
    shape: Shape,
    seed: int,
    output: Path,
    plan: Path,
    prices: dict[str, Price] | None = None,
) -> None:
    """Write the requests of one purpose and their plan.

    Raises
    ------
    UserError
        If an input is missing, or explanations are needed and not given.
    """
    if purpose != "explain" and explanations is None:
        raise cli.UserError(f"the purpose {purpose} needs --explanations")
    categories = load_taxonomy(taxonomy)
    table = ContextTable.read(contexts)
    status = files.read_parquet(latents)
    usable = sorted(int(x) for x in status.loc[status["status"] == OK, "latent"])
    builder = Builder(purpose, table, categories, annotators, shape, seed)
    if explanations is None:
        subjects = list(_everyone(usable, annotators, shape.replicates))
    else:
        subjects = list(_explained(files.read_parquet(explanations), annotators))
    header = builder.header()
    write_requests(output, header, builder.requests(subjects))
    summary = plan_requests(header, read_requests(output), prices or {})
    files.write_json(plan, summary)
    calls = int(summary["total"]["calls"])
    cli.log(f"{purpose}: {calls} requests for {len(subjects)} latents and annotators")


def _everyone(
    latents: Sequence[int], annotators: Sequence[Annotator], replicates: int
) -> Iterator[Subject]:
    for annotator in annotators:
        for replicate in range(replicates):
            for latent in latents:
                yield Subject(annotator, replicate, latent)


def _explained(table: pd.DataFrame, annotators: Sequence[Annotator]) -> Iterator[Subject]:
    by_name = {annotator.name: annotator for annotator in annotators}
    usable = table[(table["explanation"] != "") & table["annotator"].isin(list(by_name))]
    columns = ["annotator", "replicate", "latent", "explanation"]
    for name, replicate, latent, explanation in usable[columns].itertuples(index=False):
        yield Subject(by_name[name], int(replicate), int(latent), explanation)


class Builder:
    """Turns subjects into requests; every random choice hangs on (seed, latent, purpose) alone."""

    def __init__(
        self,
        purpose: str,
        table: ContextTable,
        taxonomy: Taxonomy,
        annotators: Sequence[Annotator],
        shape: Shape,
        seed: int,
    ) -> None:
        self.purpose = purpose
        self.table = table
        self.taxonomy = taxonomy
        self.shape = shape
        self.seed = seed
        self.prompts = {a.name: prompts.load_prompt(purpose, a.prompt) for a in annotators}
        self.systems = {
            a.name: prompts.fill(
                self.prompts[a.name].system,
                taxonomy=prompts.describe_taxonomy(taxonomy, a.label_seed),
            )
            for a in annotators
        }

    def header(self) -> Header:
        """Return what the requests share."""
        return Header(
            purpose=self.purpose,
            systems={_short(text): text for text in self.systems.values()},
            ids=(*self.taxonomy.ids, *RESERVED) if self.purpose == "classify" else (),
            prompts={prompt.name: prompt.digest for prompt in self.prompts.values()},
            taxonomy={"version": self.taxonomy.version, "sha256_16": self.taxonomy.digest},
        )

    def requests(self, subjects: Sequence[Subject]) -> Iterator[Request]:
        """Yield the requests of all subjects, in an order permuted by the seed."""
        tasks = [(subject, subject) for subject in subjects]
        if self.purpose == "score" and self.shape.null:
            tasks += self._permuted(subjects)
        random.Random(f"{self.seed}:order:{self.purpose}").shuffle(tasks)
        for subject, other in tasks:
            if self.purpose == "explain":
                yield self._explain(subject)
            elif self.purpose == "classify":
                yield self._classify(subject)
            else:
                yield from self._score(subject, other)

    def _permuted(self, subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Subject]]:
        groups: dict[tuple[str, int], list[Subject]] = {}
        for subject in subjects:
            groups.setdefault((subject.annotator.name, subject.replicate), []).append(subject)
        for (name, replicate), members in groups.items():
            members = sorted(members, key=lambda subject: subject.latent)
            rng = np.random.default_rng(_number(f"{self.seed}:null:{name}:{replicate}"))
            if len(members) > 1:
                for subject, other in zip(members, derangement(len(members), rng), strict=True):
                    yield subject, members[other]

    def _explain(self, subject: Subject) -> Request:
        mine = self.table.of(subject.latent, TRAIN)
        active = [c for c in mine if c.kind == POSITIVE][: self.shape.train_active]
        silent = [c for c in mine if c.kind != POSITIVE]
        silent = sorted(silent, key=lambda c: c.kind != HARD)[: self.shape.train_silent]
        data = {
            "active": [{"text": c.marked(), "tokens": c.strongest()} for c in active],
            "silent": [c.text for c in silent],
        }
        return self._request(subject, subject, "explain", data, [*active, *silent])

    def _classify(self, subject: Subject) -> Request:
        mine = self.table.of(subject.latent, TRAIN)
        active = [c for c in mine if c.kind == POSITIVE][: self.shape.classify_examples]
        data = {
            "explanation": subject.explanation,
            "examples": [c.marked() for c in active],
        }
        return self._request(subject, subject, "classify", data, active)

    def _score(self, subject: Subject, other: Subject) -> Iterator[Request]:
        kind, count = "score", self.shape.held_out
        if subject is not other:
            kind, count = "null", self.shape.null
        mine = self.table.of(subject.latent, HELD_OUT)
        rng = random.Random(f"{self.seed}:{kind}:{subject.latent}")
        chosen = []
        for wanted in ((POSITIVE,), (HARD,), ("random_negative",)):
            pool = [c for c in mine if c.kind in wanted]
            share = count // 2 if wanted == (POSITIVE,) else count // 4
            chosen += rng.sample(pool, min(share, len(pool)))
        rng.shuffle(chosen)
        size = self.shape.items_per_prompt
        for part, start in enumerate(range(0, len(chosen), size)):
            items = chosen[start : start + size]
            codes = [f"a{i + 1}" for i in range(len(items))]
            data = {
                "explanation": other.explanation,
                "items": [
                    {"item": code, "text": c.text} for code, c in zip(codes, items, strict=True)
                ],
            }
            yield self._request(subject, other, f"{kind}{part}", data, items, codes)

    def _request(
        self,
        subject: Subject,
        other: Subject,
        part: str,
        data: Mapping[str, object],
        shown: Sequence[Context],
        codes: Sequence[str] = (),
    ) -> Request:
        annotator = subject.annotator
        place = f"{self.seed}:{part}:{subject.latent}:{annotator.name}:{subject.replicate}"
        block = prompts.data_block(data, place)
        return Request(
            id=f"{part}/{subject.latent}/{annotator.name}/{subject.replicate}",
            purpose=self.purpose,
            latent=subject.latent,
            annotator=annotator.name,
            replicate=subject.replicate,
            model=annotator.model,
            system=_short(self.systems[annotator.name]),
            user=prompts.fill(self.prompts[annotator.name].user, data=block),
            seed=_number(place) % 2**31,
            max_output=MAX_OUTPUT[self.purpose],
            temperature=annotator.temperature,
            items=tuple(codes),
            positives=tuple(c.kind == POSITIVE for c in shown) if codes else (),
            hard=tuple(c.kind == HARD for c in shown) if codes else (),
            owner=other.latent,
            contexts=contexts_digest(shown),
        )


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and build."""
    shape = Shape()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--purpose", choices=prompts.PURPOSES, required=True)
    parser.add_argument("--contexts", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--explanations", type=Path, help="needed for classify and score")
    parser.add_argument("--annotators", required=True, help="JSON list of objects")
    parser.add_argument("--replicates", type=int, default=shape.replicates)
    parser.add_argument("--items-per-prompt", type=int, default=shape.items_per_prompt)
    parser.add_argument("--held-out", type=int, default=shape.held_out)
    parser.add_argument("--null", type=int, default=shape.null)
    parser.add_argument("--prices", default="{}", help="JSON: model to [input, output] per million")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--plan", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        build_requests(
            a.purpose,
            a.contexts,
            a.latents,
            a.taxonomy,
            a.explanations,
            parse_annotators(a.annotators),
            Shape(
                items_per_prompt=a.items_per_prompt,
                held_out=a.held_out,
                null=a.null,
                replicates=a.replicates,
            ),
            a.seed,
            a.requests,
            a.plan,
            Price.parse(a.prices),
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
