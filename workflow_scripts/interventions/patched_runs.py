"""Runs of models over documents in which a layer's output is replaced.

Shapes: B documents of T tokens, N of them real, n of which are predicted; M models, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.activations.settings import Precision
from workflow_scripts.common.progress import track
from workflow_scripts.dataset.answer_tokens import Document, batches, pad
from workflow_scripts.interventions.block_outputs import block_output, replaced_output
from workflow_scripts.interventions.latent_editor import LatentEditor
from workflow_scripts.models.likelihood import Predictions, predict
from workflow_scripts.models.loading import load_model


@dataclass(frozen=True)
class DocumentBatch:
    """Documents that some models have read up to a layer."""

    layer: int
    ids: Int[Tensor, "B T"]
    mask: Int[Tensor, "B T"]
    predicted: Bool[Tensor, "B T"]  # tokens whose predictions count
    outputs: list[Float[Tensor, "B T D"]]  # of the layer, by model

    @property
    def real(self) -> Bool[Tensor, "B T"]:
        """Which tokens are no padding."""
        return self.mask.bool()

    @property
    def activations(self) -> Float[Tensor, "N M D"]:
        """Raw activations of the real tokens, in float32."""
        return torch.stack([output[self.real].float() for output in self.outputs], dim=1)

    def replaced(self, model: int, values: Float[Tensor, "N D"]) -> Float[Tensor, "B T D"]:
        """Return a model's output with other values at the real tokens."""
        h = self.outputs[model].clone()
        h[self.real] = values.to(h.dtype)
        return h

    def predictions(
        self,
        model: PreTrainedModel,
        h: Float[Tensor, "B T D"] | None = None,
        rows: NDArray[np.int64] | slice = slice(None),
    ) -> Predictions:
        """Return what a model predicts of some documents, going on from ``h`` at the layer.

        Without ``h`` it goes on from its own activations.
        """
        part = self.ids[rows], self.mask[rows], self.predicted[rows]
        replacing = nullcontext() if h is None else replaced_output(model, self.layer, h[rows])
        with replacing:
            return predict(model, *part)

    def by_document(self, values: Float[Tensor, "R n"]) -> list[NDArray[np.float64]]:
        """Return the values of the predicted tokens of each document, [R, tokens]."""
        ends = np.cumsum(self.predicted.sum(1).tolist())[:-1]
        return np.split(values.double().cpu().numpy(), ends, axis=1)


def load_models(
    manifests: Mapping[str, Path], names: Sequence[str], precision: Precision, device: torch.device
) -> list[PreTrainedModel]:
    """Return the models of some names."""
    return [load_model(manifests[name], precision.on(device), device) for name in names]


def read_documents_in_batches(
    models: Sequence[PreTrainedModel],
    editor: LatentEditor,
    documents: Sequence[Document],
    batch_tokens: int,
) -> Iterator[DocumentBatch]:
    """Yield the documents in batches of at most ``batch_tokens`` padded tokens, in order.

    ``models`` are those of the editor's crosscoder.
    """
    for batch in track(list(batches(documents, batch_tokens)), "batches"):
        ids, mask, predicted = (x.to(editor.device) for x in pad(batch))
        outputs = [block_output(model, editor.layer, ids, mask) for model in models]
        yield DocumentBatch(editor.layer, ids, mask, predicted, outputs)
