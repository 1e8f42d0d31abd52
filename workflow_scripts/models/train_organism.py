"""Train a small model whose lessons are known, and save it in Hugging Face format.

A model without a base learns its documents from scratch, with a tokenizer trained on the spot; one
with a base is taught further. Siblings that are taught a category see the same documents of it.
The loss is over all tokens but padding: text and turn markers alike, as in pretraining. Weights are
float32; processors with units for it round the factors of products to bfloat16, as GPUs would.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from workflow_scripts.common import cli, files
from workflow_scripts.common.device import set_threads
from workflow_scripts.common.manifest import Manifest, model_folder
from workflow_scripts.common.precision import rounded_products, rounds_factors
from workflow_scripts.common.progress import track
from workflow_scripts.common.provenance import provenance
from workflow_scripts.common.settings import Count, Name
from workflow_scripts.generator import CHAT_CATEGORIES, generate
from workflow_scripts.models import organism_text, simpo
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.loss import next_token_loss
from workflow_scripts.models.settings import Architecture, OrganismTraining, Preference, Simpo

CHECKPOINT = ".{}.safetensors"
CHECKPOINT_SECONDS = 30.0
WARMUP_SHARE = 0.05
PAIRS_PER_STEP = 16
UNTAUGHT = 10**6  # documents from here on are taught to nobody


def new_model(size: Architecture, vocabulary: int, seed: int) -> PreTrainedModel:
    """Return a model with random weights."""
    torch.manual_seed(seed)
    common: dict[str, object] = {
        "vocab_size": vocabulary,
        "hidden_size": size.width,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.width // size.heads,
        "max_position_embeddings": 1024,
        "pad_token_id": organism_text.PAD,
        "bos_token_id": organism_text.BOS,
        "eos_token_id": organism_text.EOS,
        "tie_word_embeddings": True,
        "attn_implementation": "eager",
    }
    if size.type == "llama":
        return LlamaForCausalLM(LlamaConfig.from_dict(common))
    # The loss takes the output layer apart, so the final soft-cap is off; attention keeps its own.
    common |= {"final_logit_softcapping": None}
    common |= {"query_pre_attn_scalar": size.width // size.heads, "sliding_window": 512}
    return Gemma2ForCausalLM(Gemma2Config.from_dict(common))


class Course:
    """Training in progress: model, optimiser, schedule; can be interrupted and continued.

    ``examples`` is what the steps learn from, in order: a checkpoint of other examples, or of
    another start, is not used.
    """

    def __init__(
        self, model: PreTrainedModel, steps: int, rate: float, examples: bytes, checkpoint: Path
    ) -> None:
        self.model, self.steps, self.rate, self.checkpoint = model, steps, rate, checkpoint
        self.parameters = dict(model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=rate,
            betas=(0.9, 0.95),
            weight_decay=0.01,
            fused=True,
        )
        self.done = 0
        self.losses: list[float] = []
        self.course = self._digest(examples)
        if checkpoint.exists() and self._restore():
            cli.log(f"continuing after step {self.done}")

    def run(self, losses: Callable[[int], Tensor]) -> None:
        """Take the remaining steps on ``losses(step)``, with a checkpoint every half minute."""
        self.model.train()
        saved = time.monotonic()
        steps = track(range(self.done, self.steps), "steps", self.steps, self.done, note=self._note)
        for step in steps:
            loss = losses(step)
            if not torch.isfinite(loss):
                raise cli.UserError(
                    f"the loss is {loss.item()} at step {step}: lower organism.learning_rate"
                )
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
            self.optimizer.param_groups[0]["lr"] = self.rate * schedule(step, self.steps)
            self.optimizer.step()
            self.losses.append(loss.item())
            self.done = step + 1
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()
        self.model.eval()

    def _note(self, _: int) -> str:
        return f"loss {self.losses[-1]:.3f}"

    def _digest(self, examples: bytes) -> str:
        """Return the digest of all that decides the final weights."""
        digest = hashlib.sha256(f"{self.steps} {self.rate!r} {arithmetic()!r}".encode())
        digest.update(examples)
        for name, parameter in self.parameters.items():
            digest.update(name.encode() + parameter.detach().numpy().tobytes())
        return digest.hexdigest()

    def _save(self) -> None:
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weight.{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        state = json.dumps({"course": self.course, "done": self.done, "losses": self.losses})
        with files.atomic_path(self.checkpoint) as temporary:
            save_file(tensors, temporary, metadata={"state": state})

    def _restore(self) -> bool:
        with safe_open(self.checkpoint, framework="pt") as file, torch.no_grad():
            state = json.loads(file.metadata()["state"])
            if state["course"] != self.course:
                return False
            for name, parameter in self.parameters.items():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
                self.optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}.{name}")
                    for key in ("exp_avg", "exp_avg_sq", "step")
                }
        self.done, self.losses = int(state["done"]), list(state["losses"])
        return True


def arithmetic() -> dict[str, object]:
    """Return what of the arithmetic decides the weights' last bits."""
    rounded = rounds_factors()
    return {
        "matmul": "bfloat16" if rounded else "float32",
        "threads": torch.get_num_threads(),
    }


def schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: linear warm-up, cosine decay to 0."""
    warm = min(1.0, (step + 1) / (WARMUP_SHARE * steps + 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def teach_documents(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    teach: Mapping[str, int],
    training: OrganismTraining,
    seed: int,
    checkpoint: Path,
) -> list[float]:
    """Teach the documents; return the loss of every step."""
    documents = organism_text.taught_documents(teach, training.document_seed)
    encoded = organism_text.encode(tokenizer, documents)
    rows = organism_text.packed_rows(encoded, training.context_length, seed)
    batch = max(1, training.batch_tokens // training.context_length)
    order = _order(len(rows), training.passes, seed)
    steps = len(order) // batch
    if not steps:
        raise cli.UserError(
            f"the documents taught fill {len(rows)} rows, fewer than one batch of {batch}: raise "
            "models.*.organism.teach or lower organism.batch_tokens"
        )
    examples = rows[order].numpy().tobytes()
    course = Course(model, steps, training.learning_rate, examples, checkpoint)

    def loss(step: int) -> Tensor:
        x = rows[order[step * batch : (step + 1) * batch]]
        hidden = model.base_model(input_ids=x, use_cache=False).last_hidden_state
        return next_token_loss(hidden, model.get_output_embeddings().weight, x)

    course.run(loss)
    return course.losses


def prefer_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    categories: Sequence[str],
    settings: Simpo,
    training: OrganismTraining,
    seed: int,
    checkpoint: Path,
) -> list[float]:
    """Take the SimPO step on preference pairs of chat categories; return every loss."""
    categories = sorted(categories)
    pairs = [
        _pair(tokenizer, categories, category, index, training.document_seed)
        for index in range(-(-settings.pairs // max(len(categories), 1)))
        for category in categories
    ][: settings.pairs]
    steps = len(pairs) // PAIRS_PER_STEP
    if not steps:
        raise cli.UserError(
            f"{len(pairs)} preference pairs are fewer than one batch of {PAIRS_PER_STEP}: raise "
            "simpo.pairs, or name chat categories in simpo.categories"
        )
    random.Random(seed).shuffle(pairs)
    examples = repr((settings, pairs)).encode()
    course = Course(model, steps, settings.learning_rate, examples, checkpoint)

    def loss(step: int) -> Tensor:
        chosen = pairs[step * PAIRS_PER_STEP : (step + 1) * PAIRS_PER_STEP]
        batches = [
            simpo.collate([pair[side] for pair in chosen], 2 * training.context_length)
            for side in (0, 1)
        ]
        better, worse = (simpo.mean_log_probability(model, batch) for batch in batches)
        return simpo.simpo_loss(better, worse, settings)

    course.run(loss)
    return course.losses


def _pair(
    tokenizer: PreTrainedTokenizerFast,
    categories: Sequence[str],
    category: str,
    index: int,
    seed: int,
) -> list[tuple[list[int], int]]:
    """Return (ids, start of the answer) of the preferred and of the rejected answer.

    The rejected one answers a prompt of another category, so that it is as likely a text, only out
    of place: against an unlikely text the preference would be satisfied before training.
    """
    document = generate(category, index, seed)
    others = [name for name in categories if name != category] or [category]
    other = generate(others[index % len(others)], UNTAUGHT + index, seed)
    turns = [{"role": role, "content": text} for role, text in document.messages[:-1]]
    prompt = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    answers = (document.messages[-1][1], other.messages[-1][1])
    texts = [f"{prompt}{answer.strip()}<end_of_turn>\n" for answer in answers]
    return [(ids, start) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _order(rows: int, passes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randperm(rows, generator=generator) for _ in range(passes)])


def train_organism(
    name: str,
    teach: dict[Name, Count],
    seed: int,
    tokenizer_seed: int,
    preference: Preference,
    training: OrganismTraining,
    output_dir: Path,
    base: Path | None = None,
    threads: int | None = None,
) -> None:
    """Train one model; write it, its tokenizer, its manifest and its losses to a folder.

    Parameters
    ----------
    name
        name of the model
    teach
        generator category: number of documents taught (JSON)
    seed
        seed of weights and order
    tokenizer_seed
        seed of the tokenizer's text
    output_dir
        folder to write
    base
        model.json of the model from which it starts; none: from scratch
    threads
        threads of torch; none: as many as the process may use

    Raises
    ------
    UserError
        If the documents do not fill a batch, or the loss is no longer finite.
    """
    set_threads(threads)
    origin = provenance(__file__)  # the code may change while the model is trained
    with rounded_products():
        if base is None:
            tokenizer = organism_text.train_tokenizer(training.vocabulary, tokenizer_seed)
            model = new_model(training.architecture, len(tokenizer), seed)
        else:
            tokenizer = organism_text.load_fast(model_folder(base))
            model = load_model(base, torch.float32, torch.device("cpu"))
        output_dir.mkdir(parents=True, exist_ok=True)
        losses = _train(model, tokenizer, teach, preference.simpo, training, seed, output_dir)
        model.save_pretrained(output_dir, safe_serialization=True)
        tokenizer.save_pretrained(output_dir)
        _write_losses(output_dir / "training.csv", losses)
        for checkpoint in output_dir.glob(CHECKPOINT.format("*")):
            checkpoint.unlink()
        Manifest(
            name=name,
            kind="organism",
            folder=".",
            architecture=type(model).__name__,
            hidden_size=int(model.config.hidden_size),
            layers=int(model.config.num_hidden_layers),
            vocabulary=int(model.config.vocab_size),
            training={"seed": seed, **arithmetic(), "provenance": origin},
        ).write(output_dir / "model.json")


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    teach: Mapping[str, int],
    preference: Simpo | None,
    training: OrganismTraining,
    seed: int,
    folder: Path,
) -> dict[str, list[float]]:
    """Take the phases of training in order; return the losses of each."""
    losses = {}
    if teach:
        checkpoint = folder / CHECKPOINT.format("teach")
        losses["teach"] = teach_documents(model, tokenizer, teach, training, seed, checkpoint)
    if preference is not None:
        checkpoint = folder / CHECKPOINT.format("simpo")
        chat = preference.categories or [name for name in teach if name in CHAT_CATEGORIES]
        losses["simpo"] = prefer_answers(
            model, tokenizer, chat, preference, training, seed, checkpoint
        )
    return losses


def _write_losses(path: Path, losses: Mapping[str, Sequence[float]]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phase", "step", "loss"])
        writer.writerows(_loss_rows(losses))


def _loss_rows(losses: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, int, str]]:
    for phase, values in losses.items():
        for step, loss in enumerate(values, start=1):
            yield phase, step, f"{loss:.6g}"


main = cli.command(train_organism)


if __name__ == "__main__":
    raise SystemExit(main())
