"""Two model folders of another architecture, a JSONL file and a short config, to the report.

The config and the commands are those of docs/tutorial.md.
"""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path

import pytest

from tests.docs.pages import MY_MODELS, TUTORIAL
from tests.workflow import running

pytestmark = pytest.mark.workflow

WORDS = (
    "river",
    "stone",
    "lamp",
    "paper",
    "garden",
    "engine",
    "letter",
    "window",
    "winter",
    "bread",
    "music",
    "teacher",
    "harbour",
    "copper",
    "ladder",
    "market",
    "forest",
    "signal",
    "bridge",
    "thread",
    "mirror",
    "castle",
    "pepper",
    "tunnel",
    "rocket",
)


def write_notes(path: Path) -> list[str]:
    """Write documents of random words, one JSON object per line, and return their texts."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 60))) + "." for _ in range(1200)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return texts


def write_models(folder: Path, texts: list[str]) -> None:
    """Write two small Llama models with a tokenizer of their own; one is the other, changed."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    for name in ("base", "tuned"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3 * float(parameter.std()))


def test_report_of_two_llama_folders(tmp_path: Path) -> None:
    folder = running.copy_tree(tmp_path / "tree")
    write_models(folder / "models", write_notes(folder / "notes.jsonl"))
    (folder / "my_models.yaml").write_text(MY_MODELS)
    assert len(MY_MODELS.splitlines()) <= 15
    planned, printed, other_seed = (
        running.snakemake(folder, *shlex.split(command)[1:])
        for command in TUTORIAL
        if command.startswith("snakemake ")
    )
    assert "fit_crosscoder" in running.planned(planned) & running.planned(other_seed)
    results = folder / "results" / "my_run"
    answer = json.loads((results / "comparison" / "answer.json").read_text(encoding="utf-8"))
    assert answer["sentence"] in printed
    assert "base" in answer["sentence"]
    assert answer["labeller"] == "topics"
    assert (results / "report" / "index.html").stat().st_size > 10_000
    manifest = json.loads((results / "models" / "tuned" / "model.json").read_text())
    assert manifest["architecture"] == "LlamaForCausalLM"
    assert running.NOTHING in running.snakemake(folder, "-n", "--configfile", "my_models.yaml")


def test_tokenizers_in_conflict_are_refused_before_work(tmp_path: Path) -> None:
    folder = running.copy_tree(tmp_path / "tree")
    texts = write_notes(folder / "notes.jsonl")
    write_models(folder / "models", texts)
    path = folder / "models" / "tuned" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "my_models.yaml").write_text(MY_MODELS)
    printed = running.snakemake(folder, "-c1", "--configfile", "my_models.yaml", good=False)
    told = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "the tokenizers of base and tuned conflict" in told[0]
    assert "Traceback" not in printed
    assert not (folder / "results").exists()
