"""Requests for the categories of documents: pure, and blind to the models that are compared."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from workflow_scripts.autointerp.llm.requests import Header, Request, number_of, short_digest
from workflow_scripts.autointerp.prompting import templates
from workflow_scripts.autointerp.settings import LABEL, Annotator
from workflow_scripts.common.taxonomy import UNASSIGNED, Taxonomy


@dataclass(frozen=True)
class Choices:
    """The categories of which an annotator chooses one."""

    ids: tuple[str, ...]
    described: Mapping[int, str]
    """The categories as a prompt shows them, by the seed of their order."""
    origin: Mapping[str, str]
    """Version and digest, for the ledger."""


def choices_of(
    taxonomy: Taxonomy, own: Mapping[str, str], annotators: Mapping[str, Annotator]
) -> Choices:
    """Return the user's own categories, name to what belongs to it, or else the taxonomy's."""
    seeds = {settings.label_seed for settings in annotators.values()}
    if not own:
        described = {seed: templates.describe_taxonomy(taxonomy, seed) for seed in seeds}
        origin = {"version": taxonomy.version, "sha256_16": taxonomy.digest}
        return Choices(taxonomy.ids, described, origin)
    described = {seed: templates.describe_names(own, seed) for seed in seeds}
    digest = short_digest(json.dumps(own, sort_keys=True))
    return Choices(tuple(sorted(own)), described, {"version": "own", "sha256_16": digest})


class DocumentRequests:
    """Turns texts into requests; every random choice hangs on (seed, document) alone."""

    def __init__(
        self,
        choices: Choices,
        annotators: Mapping[str, Annotator],
        replicates: int,
        max_output: int,
        seed: int,
    ) -> None:
        self.choices = choices
        self.annotators = annotators
        self.replicates = replicates
        self.max_output = max_output
        self.seed = seed
        self.prompts = {
            name: templates.load_prompt(LABEL, settings.prompt)
            for name, settings in annotators.items()
        }
        self.systems = {
            name: templates.fill(
                prompt.system, taxonomy=choices.described[annotators[name].label_seed]
            )
            for name, prompt in self.prompts.items()
        }

    def header(self, code: str = "") -> Header:
        """Return what the requests share; ``code`` is a digest of the code that builds them."""
        return Header(
            purpose=LABEL,
            systems={short_digest(text): text for text in self.systems.values()},
            ids=(*self.choices.ids, UNASSIGNED),
            prompts={prompt.name: prompt.digest for prompt in self.prompts.values()},
            taxonomy=dict(self.choices.origin),
            code=code,
        )

    def requests(self, texts: Mapping[int, str]) -> Iterator[Request]:
        """Yield each annotator's requests about all texts, in an order permuted by the seed."""
        order = list(product(sorted(texts), self.annotators, range(self.replicates)))
        random.Random(f"{self.seed}:order:{LABEL}").shuffle(order)
        for document, annotator, replicate in order:
            yield self._request(document, texts[document], annotator, replicate)

    def _request(self, document: int, text: str, annotator: str, replicate: int) -> Request:
        settings, prompt = self.annotators[annotator], self.prompts[annotator]
        place = f"{self.seed}:{LABEL}:{document}:{annotator}:{replicate}"
        block = templates.data_block({"text": text}, place)
        return Request(
            id=f"{LABEL}/{document}/{annotator}/{replicate}",
            purpose=LABEL,
            kind=LABEL,
            subject=document,
            annotator=annotator,
            replicate=replicate,
            model=settings.model,
            system=short_digest(self.systems[annotator]),
            user=templates.fill(prompt.user, data=block),
            seed=number_of(place) % 2**31,
            max_output=self.max_output,
            temperature=settings.temperature,
            contexts=short_digest(text),
            prompt=prompt.name,
            extra=dict(settings.extra_body),
        )
