"""Likelihoods of chosen tokens, against those of the whole logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.models.random_models import ARCHITECTURES, OTHER_SIZES, SIZES, VOCABULARY
from workflow_scripts.models import likelihood
from workflow_scripts.models.likelihood import compare, predict


def model_of(architecture: str, **changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {**OTHER_SIZES.get(architecture, SIZES), **changes}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(architecture, **sizes), attn_implementation="eager"
    )
    model.eval()
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, mask and chosen tokens [3, 9]."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    chosen = (torch.rand(3, 9, generator=generator) < 0.6) & mask.bool()
    chosen[:, 0] = False
    return ids, mask, chosen


def token_losses(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    return compare(predict(model, ids, mask, chosen), [])[0][0]


@pytest.mark.parametrize("chunk", [2, 512])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "cohere"])  # Cohere scales its logits
def test_losses_are_those_of_the_logits(
    architecture: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    model = model_of(architecture)
    ids, mask, chosen = batch()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    kept = chosen[:, 1:]
    expected = functional.cross_entropy(logits[:, :-1][kept], ids[:, 1:][kept], reduction="none")
    found = token_losses(model, ids, mask, chosen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():  # the decoder is its own again
        again = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(again, logits, rtol=0, atol=0)


def test_no_logits_but_of_a_chunk_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", 4)
    model = model_of("gemma2")
    sizes: list[int] = []
    output = model.get_output_embeddings()
    output.register_forward_hook(lambda _, __, logits: sizes.append(logits.shape[:-1].numel()))
    ids, mask, chosen = batch()
    found = token_losses(model, ids, mask, chosen)
    assert sum(sizes) == len(found) == int(chosen.sum())
    assert max(sizes) <= 4


def test_nothing_chosen() -> None:
    ids, mask, chosen = batch()
    assert token_losses(model_of("llama"), ids, mask, torch.zeros_like(chosen)).shape == (0,)


def test_divergence_of_models_whose_vocabularies_are_padded_differently() -> None:
    ids, mask, chosen = batch()
    torch.manual_seed(3)
    own, other = model_of("llama"), model_of("llama", vocab_size=VOCABULARY + 6)
    kept = chosen[:, 1:]
    with torch.no_grad():
        log_p, log_q = (
            model(input_ids=ids, attention_mask=mask).logits[:, :-1][kept].log_softmax(-1)
            for model in (own, other)
        )
    expected = functional.kl_div(log_q[:, :VOCABULARY], log_p, reduction="none", log_target=True)
    losses, divergences = compare(*_both(own, other, ids, mask, chosen))
    torch.testing.assert_close(divergences[0], expected.sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses[1], token_losses(other, ids, mask, chosen))
    assert compare(*_both(own, own, ids, mask, chosen))[1].abs().max() < 1e-6


def _both(
    own: PreTrainedModel, other: PreTrainedModel, *batch: torch.Tensor
) -> tuple[likelihood.Predictions, list[likelihood.Predictions]]:
    return predict(own, *batch), [predict(other, *batch)]
