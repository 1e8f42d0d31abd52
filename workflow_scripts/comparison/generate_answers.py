"""What do two models say? Both answer the same held-out prompts, greedily: ``answers.parquet``.

A chat is answered after its first turn of the user, a plain text is gone on with from its half. An
answer ends with the token by which the template ends a turn, with the end of text, or at the limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import Manifest, load_tokenizer
from workflow_scripts.common.progress import track
from workflow_scripts.comparison.answer_prompts import AnswerPrompt, read_prompts
from workflow_scripts.comparison.label_sample import sample_labels
from workflow_scripts.comparison.settings import AnswerSample
from workflow_scripts.dataset.answered_rows import answered_documents
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.models.loading import load_model

SPLIT = "score"
SIDES = ("baseline", "candidate")
COLUMNS = (
    *("document", "prompt", "given"),
    *(f"{name}{side}" for side in SIDES for name in ("", "tokens_", "ended_")),
    "distance",
)
"""Columns of the table; ``COLUMNS.md`` says what each means."""
Answer = tuple[NDArray[np.int64], bool]
"""The ids of an answer, without the one that ends it, and whether one does."""


@torch.no_grad()
def generate_answers(
    baseline: Path,
    candidate: Path,
    tokens: list[Path],
    labels: list[Path],
    tokenizer: Path,
    sample: AnswerSample,
    seed: int,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    output: Path,
) -> None:
    """Write both models' answers to held-out prompts.

    Parameters
    ----------
    baseline, candidate
        manifests of the two models
    tokens
        token shards, in order
    labels
        tables of labels of the documents
    tokenizer
        ``model.json`` of a model that has the tokenizer
    seed
        seed of the choice of documents
    output
        table to write, a row per document (Parquet)

    Raises
    ------
    UserError
        If no labelled document has a prompt.
    """
    device = compute.start()
    dtype = precision.on(device)
    known, answered = read_labels(labels), answered_documents(tokens, SPLIT)
    chosen = sample_labels(known, answered, sample.answer_documents, seed)
    positions = (Manifest.read(manifest).positions for manifest in (baseline, candidate))
    room = min((known for known in positions if known is not None), default=1 << 30)
    prompts, stops = read_prompts(
        tokens, SPLIT, np.unique(chosen["document"].to_numpy(dtype=np.int64))
    )
    if not prompts or len(prompts[0].ids) + sample.answer_tokens > room:
        raise cli.UserError(
            f"no labelled document of the {SPLIT} split has a prompt that leaves room for an "
            "answer: raise text.tokens, or lower comparison.answer_tokens"
        )
    reader = load_tokenizer(tokenizer)
    prompts = [prompt for prompt in prompts if len(prompt.ids) + sample.answer_tokens <= room]

    def answers_of(manifest: Path) -> list[Answer]:
        model = load_model(manifest, dtype, device)
        return list(answer(model, prompts, sample.answer_tokens, stops, batches.batch_tokens))

    before, after = (answers_of(manifest) for manifest in (baseline, candidate))
    files.write_parquet(output, answer_table(prompts, before, after, reader))


def answer(
    model: PreTrainedModel,
    prompts: Sequence[AnswerPrompt],
    limit: int,
    stops: list[int],
    tokens: int,
) -> Iterator[Answer]:
    """Yield each prompt's answer, without the token that ends it, and whether one does.

    Prompts are padded on the left; batches hold at most ``tokens`` with their answers.
    """
    ends = sorted({*stops, *_ends_of_text(model)})
    pad = ends[0] if ends else 0
    for batch in track(list(_batches(prompts, limit, tokens)), "batches"):
        longest = max(len(prompt.ids) for prompt in batch)
        ids = torch.full((len(batch), longest), pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            ids[row, longest - len(prompt.ids) :] = torch.from_numpy(prompt.ids.astype(np.int64))
            mask[row, longest - len(prompt.ids) :] = 1
        generated = cast(Any, model).generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=ends or None,
            pad_token_id=pad,
        )
        for row in generated[:, longest:].cpu().numpy():
            end = np.flatnonzero(np.isin(row, ends))
            yield row[: end[0]] if len(end) else row, bool(len(end))


def _ends_of_text(model: PreTrainedModel) -> list[int]:
    """Return the tokens by which a model ends all text."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    return list(ends) if isinstance(ends, list) else [] if ends is None else [int(ends)]


def _batches(
    prompts: Sequence[AnswerPrompt], limit: int, tokens: int
) -> Iterator[list[AnswerPrompt]]:
    held: list[AnswerPrompt] = []
    for prompt in prompts:
        if held and (len(prompt.ids) + limit) * (len(held) + 1) > tokens:
            yield held
            held = []
        held.append(prompt)
    yield held


def answer_table(
    prompts: Sequence[AnswerPrompt],
    before: Sequence[Answer],
    after: Sequence[Answer],
    tokenizer: PreTrainedTokenizerBase,
) -> pd.DataFrame:
    """Return a row per prompt, by document."""

    def text(ids: Int[np.ndarray, " n"]) -> str:
        decoded = tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)
        return str(decoded)

    columns: dict[str, list[object]] = {
        "document": [prompt.document for prompt in prompts],
        "prompt": [text(prompt.ids) for prompt in prompts],
        "given": [text(prompt.given) for prompt in prompts],
    }
    for side, answers in zip(SIDES, (before, after), strict=True):
        columns[side] = [text(ids) for ids, _ in answers]
        columns[f"tokens_{side}"] = [len(ids) for ids, _ in answers]
        columns[f"ended_{side}"] = [ended for _, ended in answers]
    columns["distance"] = [distance(b, c) for (b, _), (c, _) in zip(before, after, strict=True)]
    table = pd.DataFrame(columns)[list(COLUMNS)]
    return table.sort_values("document", ignore_index=True)


def distance(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " m"]) -> float:
    """Return Levenshtein's distance of two answers in tokens, over the length of the longer one."""
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    costs = np.arange(len(b) + 1)
    steps = np.arange(1, len(b) + 1)
    for i, token in enumerate(a, start=1):
        kept = np.minimum(costs[:-1] + (b != token), costs[1:] + 1)
        # Insertions: the least of any earlier cost plus the way from there.
        kept = np.minimum.accumulate(np.concatenate([[i], kept - steps])) + np.append(0, steps)
        costs = kept
    return float(costs[-1]) / max(len(a), len(b))


main = cli.command(generate_answers)


if __name__ == "__main__":
    raise SystemExit(main())
