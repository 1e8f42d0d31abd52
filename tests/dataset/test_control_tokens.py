"""Models whose tokenizers differ in control tokens alone: whose the text gets, and what is dropped.

The pairs are those of SmolLM2 with its chat version (another BOS), and of Qwen2.5 with its R1
distillates (other tokens of the same ids, a BOS in one of them).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from tests.dataset.conftest import CHATML, TURNS, chat, sample, trained, wrap, write_jsonl
from tests.dataset.test_tokenize_documents import FEW
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.manifest import read_tokenizer
from workflow_scripts.dataset.settings import Rendering
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.dataset.tokenize_documents import fill_shard
from workflow_scripts.dataset.vocabularies import check_agreement, known_ids

Tokenizers = dict[str, PreTrainedTokenizerFast]
RENAMED = {"<bos>": "<|begin|>", "<start_of_turn>": "<|User|>", "<end_of_turn>": "<|Assistant|>"}
DISTILLED = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ ('<|User|>' if message['role'] == 'user' else '<|Assistant|>') + message['content'] }}"
    "{% endfor %}"
)


def smol() -> Tokenizers:
    """Return a base model's tokenizer, and one whose marker of turns is its BOS."""
    base, tuned = wrap(trained(TURNS), None), wrap(trained(TURNS))
    template = CHATML.replace("<|im_start|>", "<start_of_turn>").replace("<|im_end|>", "<eos>")
    tuned.bos_token, tuned.chat_template = "<start_of_turn>", template
    return {"base": base, "tuned": tuned}


def qwen() -> Tokenizers:
    """Return a tokenizer without BOS, and one whose control tokens have the same ids."""
    text = trained(TURNS)
    base = wrap(text)
    base.bos_token = None
    base.chat_template = str(base.chat_template).replace("{{ bos_token }}", "")
    for old, new in RENAMED.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    distilled = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text), bos_token="<|begin|>", eos_token="<eos>"
    )
    distilled.chat_template = DISTILLED
    return {"base": base, "distilled": distilled}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Thirty plain texts and twenty chats."""
    rows: list[dict[str, object]] = [{"messages": chat(f"q {i}", f"a {i}")} for i in range(20)]
    chats = write_jsonl(tmp_path / "chats.jsonl", iter(rows))
    plain = write_jsonl(tmp_path / "plain.jsonl", ({"text": f"text {i}"} for i in range(30)))
    sources = {
        "chats": {"kind": "jsonl", "path": str(chats)},
        "plain": {"kind": "jsonl", "path": str(plain)},
    }
    return sample(tmp_path, sources, splits=FEW)


def shard(
    folder: Path, documents: Path, tokenizers: Tokenizers, chosen: str, template: str | None = None
) -> tuple[TokenShard, Any]:
    """Return a shard with the control tokens of the model that is chosen, and its manifest."""
    output, manifest = folder / "shard.h5", folder / "shard.json"
    if template is not None:
        (folder / "template.jinja").write_text(template)
    path = None if template is None else str(folder / "template.jinja")
    rendering = Rendering(context_length=96, template=path, control_tokens=chosen)
    fill_shard([documents], tokenizers, {}, rendering, 5_000, output, manifest)
    return TokenShard.read(output), json.loads(manifest.read_text())


@pytest.mark.parametrize(
    ("tokenizers", "sentence"),
    [
        (smol(), "BOS is id 2 in base and 3 in tuned: set text.control_tokens to the model"),
        (qwen(), r"id 2 is '<bos>' in base and '<\|begin\|>' in distilled: set text.control_tok"),
    ],
)
def test_without_a_choice_the_sentence_names_the_setting(
    tokenizers: Tokenizers, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        check_agreement(tokenizers)


@pytest.mark.parametrize(("chosen", "bos"), [("base", "<bos>"), ("tuned", "<start_of_turn>")])
def test_text_begins_with_the_bos_of_the_model_chosen(
    chosen: str, bos: str, documents: Path, tmp_path: Path
) -> None:
    tokenizers = smol()
    found, manifest = shard(tmp_path, documents, tokenizers, chosen)
    assert (found.rows, manifest["dropped"]) == (50, {})
    expected = tokenizers["base"].convert_tokens_to_ids(bos)
    assert set(found.ids[found.row_starts[:-1]].tolist()) == {expected}
    assert (manifest["provenance"]["encoder"], manifest["provenance"]["template_from"]) == (
        chosen,
        "tuned",
    )


def test_rows_with_tokens_that_mean_something_else_to_another_are_dropped(
    documents: Path, tmp_path: Path
) -> None:
    found, manifest = shard(tmp_path, documents, qwen(), "base")
    assert (found.rows, manifest["dropped"]) == (30, {"has ids that a model lacks": 20})
    assert (found.ids > 4).all()  # no control token, and no BOS


def test_rows_of_a_template_with_the_others_tokens_are_dropped(
    documents: Path, tmp_path: Path
) -> None:
    found, manifest = shard(tmp_path, documents, qwen(), "base", DISTILLED)
    assert (found.rows, manifest["dropped"]) == (
        30,
        {"needs control tokens that a model lacks": 20},
    )


def test_a_bos_that_another_model_does_not_know_is_refused(documents: Path, tmp_path: Path) -> None:
    told = r"whose BOS '<\|begin\|>' \(id 2\) would stand before every document, but base does not"
    with pytest.raises(UserError, match=told):
        shard(tmp_path, documents, qwen(), "distilled")


def test_ordinary_tokens_that_differ_stay_a_conflict() -> None:
    value = json.loads(trained(TURNS))
    words = value["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    tokenizers = {"base": wrap(trained(TURNS)), "tuned": wrap(json.dumps(value))}
    with pytest.raises(UserError, match="is 'a' in base and 'b' in tuned: use models with one"):
        check_agreement(tokenizers, control_tokens="base")


def test_a_model_that_is_none_of_the_run(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"control_tokens is other, which is none of base, tuned"):
        shard(tmp_path, documents, smol(), "other")


def test_a_token_more_than_the_embedding_has_rows_is_not_known(tmp_path: Path) -> None:
    base, tuned = wrap(trained(TURNS)), wrap(trained(TURNS))
    tuned.add_special_tokens({"pad_token": "[PAD]"})
    rows = len(base)
    check_agreement({"base": base, "tuned": tuned})
    known = known_ids({"base": base, "tuned": tuned}, {"base": rows, "tuned": rows})
    assert known[:rows].all()
    assert not known[rows:].any()


def test_a_vocabulary_smaller_than_a_padded_embedding_is_known_whole() -> None:
    base = wrap(trained(TURNS))
    assert known_ids({"base": base, "tuned": base}, {"base": 1024, "tuned": 1088}).all()


def test_a_bos_that_only_the_post_processor_knows(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(trained(TURNS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    found = read_tokenizer("model mine", tmp_path, trust=False)
    assert (found.bos_token, found.bos_token_id) == ("<bos>", 2)


def test_without_any_bos_there_is_none(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(trained(TURNS))).save_pretrained(
        tmp_path
    )
    assert read_tokenizer("model mine", tmp_path, trust=False).bos_token_id is None


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% if %}", r"chat template of tuned is not valid Jinja \(line 1"),
        ({"tool_use": "x", "rag": "y"}, "chat templates rag, tool_use and no default: write the"),
        (3, "the chat template of tuned is no text: correct its tokenizer_config.json"),
    ],
)
def test_a_template_that_is_none_is_refused(
    template: Any, told: str, documents: Path, tmp_path: Path
) -> None:
    tokenizers = smol()
    tokenizers["tuned"].chat_template = template
    with pytest.raises(UserError, match=told):
        shard(tmp_path, documents, tokenizers, "base")


def test_plain_text_needs_no_template(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "plain.jsonl", ({"text": f"text {i}"} for i in range(30)))
    documents = sample(tmp_path, {"own": {"kind": "jsonl", "path": str(plain)}}, splits=FEW)
    tokenizers = smol()
    tokenizers["tuned"].chat_template = "{% if %}"
    assert shard(tmp_path, documents, tokenizers, "base")[0].rows == 30


def test_of_several_templates_the_default_serves(documents: Path, tmp_path: Path) -> None:
    tokenizers = smol()
    template: Any = {"default": tokenizers["tuned"].chat_template, "tool_use": "{{ x }}"}
    tokenizers["tuned"].chat_template = template
    _, manifest = shard(tmp_path, documents, tokenizers, "base")
    assert manifest["template"] == template["default"]


def test_a_template_file_that_is_no_text(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jinja").write_bytes(b"\xff\xfe\x00")
    rendering = Rendering(context_length=96, template=str(tmp_path / "x.jinja"))
    with pytest.raises(UserError, match=r"x\.jinja is no UTF-8 text"):
        fill_shard(
            [documents],
            {"a": wrap(trained(TURNS))},
            {},
            rendering,
            9,
            tmp_path / "s",
            tmp_path / "m",
        )
