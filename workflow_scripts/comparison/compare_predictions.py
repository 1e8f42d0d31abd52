"""Which tokens do two models predict differently, and what does their difference promote?

Both models read a few held-out documents of each label. Leaves, by label, how far they are apart,
the tokens that the candidate predicts more and less, and what the mean difference of activations
promotes when it is read through the candidate's unembedding (logit lens); and, by row of a
document, the divergence of every token. The mean difference is that of a label less that of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.activations.blocks import decoder_blocks
from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import load_tokenizer
from workflow_scripts.common.progress import track
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.label_sample import sample_labels
from workflow_scripts.comparison.settings import Intervals, PredictionSample
from workflow_scripts.comparison.token_shifts import (
    PredictionSums,
    consistent_shift,
    mean_divergence,
)
from workflow_scripts.dataset.answer_tokens import Document, batches, pad, read_numbered
from workflow_scripts.dataset.answered_rows import answered_documents
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.latents.token_text import token_texts
from workflow_scripts.models.likelihood import Predictions, predict
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.unembedding import Unembedding, strongest

SPLIT = "score"
PREDICTION, ACTIVATION = "prediction", "activation"
MEASURES = ("divergence", "shift")
LABEL_COLUMNS = (
    *("labeller", "label", "documents"),
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")),
)
TOKEN_COLUMNS = ("labeller", "label", "read", "side", "tokens", "values")
ROW_COLUMNS = ("document", "divergence", "pieces", "divergences")
"""Columns of the three tables; ``COLUMNS.md`` says what each means."""


@dataclass(frozen=True)
class LabelledDocuments:
    """Documents, and which labels they have, [L, N]."""

    names: list[tuple[str, str]]
    numbers: Int[np.ndarray, " N"]
    members: Bool[np.ndarray, "L N"]

    @classmethod
    def of(cls, sampled: pd.DataFrame) -> LabelledDocuments:
        """Return the documents of a table of labels, labels in order of labeller and name."""
        numbers = np.unique(sampled["document"].to_numpy(dtype=np.int64))
        names, members = list[tuple[str, str]](), list[Bool[np.ndarray, " N"]]()
        for (labeller, label), own in sampled.groupby(["labeller", "label"])["document"]:
            names.append((str(labeller), str(label)))
            members.append(np.isin(numbers, own.to_numpy()))
        return cls(names, numbers, np.array(members, dtype=np.bool_).reshape(-1, len(numbers)))

    def places(self, documents: Sequence[Document]) -> Int[np.ndarray, " rows"]:
        """Return the places of the documents of some rows."""
        return np.searchsorted(self.numbers, [row.number for row in documents])


def compare_predictions(
    baseline: Path,
    candidate: Path,
    layer: int,
    tokens: list[Path],
    labels: list[Path],
    tokenizer: Path,
    sample: PredictionSample,
    intervals: Intervals,
    seed: int,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    by_label: Path,
    by_token: Path,
    rows: Path,
) -> None:
    """Write what two models predict differently, and what their difference promotes.

    Parameters
    ----------
    baseline, candidate
        manifests of the two models
    layer
        layer: output of that decoder block, counted from 1
    tokens
        token shards, in order
    labels
        tables of labels of the documents
    tokenizer
        ``model.json`` of a model that has the tokenizer
    seed
        seed of the choice of documents, of the bootstrap and of random directions
    by_label
        table to write, a row per label (CSV)
    by_token
        table to write, tokens by label (Parquet)
    rows
        table to write, the divergence of every token of the documents (Parquet)
    """
    device = compute.start()
    dtype = precision.on(device)
    answered = answered_documents(tokens, SPLIT)
    labelled = LabelledDocuments.of(
        sample_labels(read_labels(labels), answered, sample.prediction_documents, seed)
    )
    documents = read_numbered(tokens, SPLIT, labelled.numbers)
    if not documents:
        raise cli.UserError(
            f"no labelled document of the {SPLIT} split has an answer: raise text.tokens"
        )
    reader = load_tokenizer(tokenizer)
    models = (load_model(baseline, dtype, device), load_model(candidate, dtype, device))
    sizes = (int(model.config.get_text_config().vocab_size) for model in models)
    vocabulary = min(len(reader), *sizes)
    sums, divergences = read_both(
        models, layer, documents, labelled, vocabulary, batches.batch_tokens
    )
    write_csv(by_label, label_rows(labelled, sums, intervals.confidence, seed), LABEL_COLUMNS)
    found = pd.DataFrame(
        token_rows(labelled, sums, Unembedding(models[1]), reader, sample.prediction_tokens),
        columns=list(TOKEN_COLUMNS),
    )
    files.write_parquet(by_token, found)
    files.write_parquet(rows, row_table(documents, divergences, reader))


@torch.no_grad()
def read_both(
    models: tuple[PreTrainedModel, PreTrainedModel],
    layer: int,
    documents: Sequence[Document],
    labelled: LabelledDocuments,
    vocabulary: int,
    batch_tokens: int,
) -> tuple[PredictionSums, list[Float32[np.ndarray, " T"]]]:
    """Let both models read the documents; return sums, and each row's divergence by token.

    Tokens that are no answer have none. Activations at the first position, the attention sink, do
    not count.
    """
    counts = np.bincount(
        labelled.places(documents),
        [row.answer[1:].sum() for row in documents],
        len(labelled.numbers),
    ).astype(np.int64)
    width = int(models[0].config.get_text_config().hidden_size)
    sums = PredictionSums(labelled.members, counts, vocabulary, width)
    divergences = []
    for batch in track(list(batches(documents, batch_tokens)), "batches"):
        ids, mask, answer = (x.to(models[0].device) for x in pad(batch))
        sides = [read_side(model, layer, ids, mask, answer) for model in models]
        sizes = answer[:, 1:].sum(1).cpu()
        owner = torch.from_numpy(labelled.places(batch)).repeat_interleave(sizes)
        every = sums.add_predictions(owner, *(predictions for predictions, _ in sides))
        inner = answer[:, 1:].nonzero()[:, 1] > 0
        sums.add_activations(owner[inner.cpu()], *(states[inner] for _, states in sides))
        for row, own in zip(batch, every.split(sizes.tolist()), strict=True):
            values = np.zeros(len(row.ids), dtype=np.float32)
            values[1:][row.answer[1:]] = own.numpy()
            divergences.append(values)
    return sums, divergences


def read_side(
    model: PreTrainedModel,
    layer: int,
    ids: Int[Tensor, "B T"],
    mask: Int[Tensor, "B T"],
    answer: Bool[Tensor, "B T"],
) -> tuple[Predictions, Float[Tensor, "n D"]]:
    """Return a model's predictions of the answer, and its activations from which they follow."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = decoder_blocks(model)[layer - 1].register_forward_hook(keep)
    try:
        predictions = predict(model, ids, mask, answer)
    finally:
        handle.remove()
    return predictions, kept[0][:, :-1][answer[:, 1:]].float()


def label_rows(
    labelled: LabelledDocuments, sums: PredictionSums, confidence: float, seed: int
) -> Iterator[dict[str, object]]:
    """Yield how far the models are apart on each label's documents."""
    moved = sums.moved - np.nanmean(sums.moved, axis=0)
    usable = np.isfinite(sums.energy)
    for (labeller, label), members in zip(labelled.names, labelled.members, strict=True):
        inner = members & usable
        divergence = mean_divergence(sums.divergence[members], confidence, seed)
        shift = consistent_shift(moved[inner], sums.energy[inner], confidence, seed)
        yield {
            "labeller": labeller,
            "label": label,
            "documents": int(members.sum()),
            **divergence.columns("divergence"),
            **shift.columns("shift"),
        }


def token_rows(
    labelled: LabelledDocuments,
    sums: PredictionSums,
    unembedding: Unembedding,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
) -> Iterator[dict[str, object]]:
    """Yield the first tokens of each label, by what is read and by side."""
    moved = sums.moved - np.nanmean(sums.moved, axis=0)
    means = np.array([np.nanmean(moved[members], axis=0) for members in labelled.members])
    logits = unembedding.read(torch.from_numpy(means).float())[:, : len(tokenizer)]
    read = {
        (PREDICTION, "promoted"): sums.more.topk(count),
        (PREDICTION, "suppressed"): sums.less.topk(count),
        (ACTIVATION, "promoted"): strongest(logits, count),
        (ACTIVATION, "suppressed"): strongest(-logits, count),
    }
    for (kind, side), (values, ids) in read.items():
        words = token_texts(tokenizer, ids.cpu().numpy())
        for (labeller, label), own, strength in zip(
            labelled.names, words, values.cpu().numpy(), strict=True
        ):
            fields = (labeller, label, kind, side, own, strength.astype(np.float32))
            yield dict(zip(TOKEN_COLUMNS, fields, strict=True))


def row_table(
    documents: Sequence[Document],
    divergences: Sequence[Float32[np.ndarray, " T"]],
    tokenizer: PreTrainedTokenizerBase,
) -> pd.DataFrame:
    """Return every row's tokens with their divergences, by document."""
    every = np.concatenate([row.ids for row in documents])
    ends = np.cumsum([len(row.ids) for row in documents])[:-1]
    words = np.array(token_texts(tokenizer, every[:, None]), dtype=object)[:, 0]
    table = pd.DataFrame(
        {
            "document": [row.number for row in documents],
            "divergence": [
                float(values[row.answer].mean()) if row.answer.any() else 0.0
                for row, values in zip(documents, divergences, strict=True)
            ],
            "pieces": [list(part) for part in np.split(words, ends)],
            "divergences": list(divergences),
        }
    )
    return table[list(ROW_COLUMNS)].sort_values("document", kind="stable", ignore_index=True)


main = cli.command(compare_predictions)


if __name__ == "__main__":
    raise SystemExit(main())
