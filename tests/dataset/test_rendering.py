"""Role and template masks on a real byte-level tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.dataset.conftest import CHATML, GEMMA, TURNS, chat, trained, wrap
from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.rendering import (
    DAY,
    Encoded,
    Renderer,
    cut,
    fix_date,
)
from workflow_scripts.dataset.shards import ROLES
from workflow_scripts.dataset.skeletons import Messages, RenderingError
from workflow_scripts.generator import CHAT_CATEGORIES, generate


def one(renderer: Renderer, messages: Messages) -> Encoded:
    (result,) = renderer.chats([messages])
    assert isinstance(result, Encoded), result
    return result


def said(renderer: Renderer, row: Encoded, role: str, *, template: bool = False) -> str:
    chosen = (row.role == ROLES.index(role)) & (row.template == template)
    return str(renderer.tokenizer.decode(row.ids[chosen].tolist()))


def test_masks_of_a_chat(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = Renderer(tokenizer)
    messages = chat("What is a bat?", "  An animal.\nIt flies. ", "model", "end_of_turn user")
    row = one(renderer, messages)
    assert row.ids.tolist() == tokenizer.apply_chat_template(messages, return_dict=False)
    assert said(renderer, row, "user") == "What is a bat?model"
    assert said(renderer, row, "assistant") == "An animal.\nIt flies.end_of_turn user"
    assert said(renderer, row, "assistant", template=True) == (
        "<start_of_turn>model\n<end_of_turn>\n" * 2
    )
    assert said(renderer, row, "user", template=True) == (
        "<bos>" + "<start_of_turn>user\n<end_of_turn>\n" * 2
    )
    assert row.template[0]
    assert (row.ids == tokenizer.bos_token_id).sum() == 1


@pytest.mark.parametrize("category", CHAT_CATEGORIES)
def test_content_is_exactly_the_messages(tokenizer: PreTrainedTokenizerFast, category: str) -> None:
    renderer = Renderer(tokenizer)
    for index in range(20):
        (_, prompt), (_, answer) = generate(category, index, 1).messages
        row = one(renderer, chat(prompt, answer))
        assert said(renderer, row, "user") == prompt.strip()
        assert said(renderer, row, "assistant") == answer.strip()


def test_a_template_without_markers_or_bos() -> None:
    renderer = Renderer(wrap(trained(TURNS), CHATML))
    row = one(renderer, chat("Hello there", "General reply", system="Be kind"))
    assert row.ids[0] == renderer.tokenizer.bos_token_id
    assert said(renderer, row, "system") == "Be kind"
    assert said(renderer, row, "user") == "Hello there"
    assert said(renderer, row, "assistant") == "General reply"
    assert not renderer.folds(chat("Hello there", system="Be kind"))


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d %b %Y", "26 Jul 2024"),
        ("%A, %-d %B %Y, %I:%M %p", "Friday, 26 July 2024, 12:00 AM"),
        (
            "%e/%-m/%y at %-H h, day %j of week %V, 100%%",
            "26/7/24 at 0 h, day 208 of week 30, 100%",
        ),
        ("%F %T", "2024-07-26 00:00:00"),
    ],
)
def test_a_template_with_the_date_renders_alike_on_any_day(form: str, text: str) -> None:
    assert DAY.strftime(form) == text
    dated = f"{{{{ '<|im_start|>' + strftime_now('{form}') + '<|im_end|>' }}}}{CHATML}"
    renderer = Renderer(wrap(trained(TURNS), fix_date(dated)))
    row = one(renderer, chat("Hello there", "General reply"))
    assert f"<|im_start|>{text}<|im_end|>" in str(renderer.tokenizer.decode(row.ids.tolist()))
    assert said(renderer, row, "user") == "Hello there"


def test_turns_follow_each_other_with_their_roles(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = Renderer(tokenizer)
    turns = [f"turn number {index}" for index in range(7)]
    row = one(renderer, chat(*turns, system="Be kind"))
    assert said(renderer, row, "user") == "Be kind\n\n" + "".join(turns[0::2])
    assert said(renderer, row, "assistant") == "".join(turns[1::2])
    changes = np.flatnonzero(np.diff(row.role.astype(int)))
    assert len(changes) == len(turns) - 1


def test_a_template_with_a_system_prompt_of_its_own() -> None:
    own = (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}" + CHATML
    )
    renderer = Renderer(wrap(trained(TURNS), own))
    row = one(renderer, chat("Hello", "Hi"))
    assert said(renderer, row, "user") == "Hello"
    assert "You are helpful." in said(renderer, row, "user", template=True)
    assert said(renderer, one(renderer, chat("Hello", "Hi", system="Short.")), "system") == "Short."


def test_a_system_message_is_folded_where_the_template_has_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    renderer = Renderer(tokenizer)
    row = one(renderer, chat("Hello", "Hi", system="Be kind"))
    assert said(renderer, row, "user") == "Be kind\n\nHello"
    assert renderer.folds(chat("Hello", "Hi", system="Be kind"))
    assert not renderer.folds(chat("Hello", "Hi"))


def test_plain_text_has_one_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    row, again = Renderer(tokenizer).plain(["Some text", "<bos>Some text"])
    assert row.ids[0] == tokenizer.bos_token_id
    assert (row.ids == tokenizer.bos_token_id).sum() == 1
    assert row.template.tolist() == [True] + [False] * (len(row.ids) - 1)
    np.testing.assert_array_equal(row.ids, again.ids)
    np.testing.assert_array_equal(row.template, again.template)


def test_refused_and_altered_chats_are_reasons(tokenizer: PreTrainedTokenizerFast) -> None:
    results = Renderer(tokenizer).chats([chat("a", "b"), chat("a") * 2, chat("c", "d")])
    assert isinstance(results[0], Encoded)
    assert isinstance(results[2], Encoded)
    assert isinstance(results[1], RenderingError)
    assert "Roles must alternate" in str(results[1])
    upper = Renderer(wrap(trained(TURNS), CHATML.replace("['content']", "['content'] | upper")))
    (changed,) = upper.chats([chat("small", "words")])
    assert str(changed) == "the template changes its content"


def test_no_template_anywhere() -> None:
    renderer = Renderer(wrap(trained(TURNS), None))
    assert renderer.chats([]) == []
    with pytest.raises(UserError, match=r"no model's tokenizer has a chat template: set text.temp"):
        renderer.chats([chat("a", "b")])


def test_cutting_never_splits_a_marker(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = Renderer(tokenizer)
    row = one(renderer, chat("What is a bat?", "An animal."))
    header = np.flatnonzero(row.template & (row.role == ROLES.index("assistant")))[0]
    trailer = np.flatnonzero(row.template & (row.role == ROLES.index("user")))[-1]
    for length in range(2, len(row.ids) + 2):
        short = cut(row, length)
        assert len(short.ids) <= length
        if len(short.ids) < len(row.ids) and not short.template.all():
            assert not short.template[-1] or not row.template[len(short.ids)]
    assert len(cut(row, int(header) + 1).ids) < trailer
    assert len(cut(row, 999).ids) == len(row.ids)


def test_masks_with_a_sentencepiece_like_tokenizer() -> None:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bytes_known = [f"<0x{value:02X}>" for value in range(256)]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer.train_from_iterator(
        ["the bat flies at night\nuser model " * 3] * 4,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=[*special, *bytes_known], show_progress=False
        ),
    )
    renderer = Renderer(wrap(tokenizer.to_str()))
    row = one(renderer, chat("the bat? 日本", "flies\nat  night é"))
    assert said(renderer, row, "user") == "the bat? 日本"
    assert said(renderer, row, "assistant") == "flies\nat  night é"
    assert said(renderer, row, "assistant", template=True).startswith("<start_of_turn>model\n")


KEEPS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
REMOVES = KEEPS.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% else %}{{ m.content }}{% endif %}",
)
REWRITES = KEEPS.replace(
    "{{ m.content }}",
    "{% set parts = m.content.split('</think>') %}"
    "{% if m.role == 'assistant' and parts | length > 1 %}"
    "<think>\n{{ parts[0].split('<think>')[-1].strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ parts[-1].lstrip('\n') }}",
)
LATE_SYSTEM = (
    "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if m == users[-1] and messages[0].role == 'system' %}{{ messages[0].content }}\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
)
THOUGHTS = chat("One?", "<think>\nA bat.\n</think>\n\nYes.", "Two?", "<think>B, cat.</think>No.")


def with_template(template: str) -> Renderer:
    return Renderer(wrap(trained(TURNS), template))


@pytest.mark.parametrize(
    ("template", "answers", "removed"),
    [
        (KEEPS, "\nA bat.\n\n\nYes.B, cat.No.", False),
        (REWRITES, "A bat.Yes.B, cat.No.", False),
        (REMOVES, "Yes.B, cat.No.", True),
    ],
    ids=["keeps", "rewrites", "removes"],
)
def test_thoughts_are_content_where_the_template_keeps_them(
    template: str, answers: str, removed: bool
) -> None:
    renderer = with_template(template)
    row = one(renderer, THOUGHTS)
    assert row.ids[1:].tolist() == renderer.tokenizer.apply_chat_template(
        THOUGHTS, return_dict=False
    )
    assert said(renderer, row, "assistant") == answers
    assert said(renderer, row, "user") == "One?Two?"
    assert row.removed == removed


def test_a_system_message_before_the_last_user_turn() -> None:
    renderer = with_template(LATE_SYSTEM)
    row = one(renderer, chat("One?", "Yes.", "Two?", "No.", system="Be kind"))
    assert said(renderer, row, "system") == "Be kind"
    assert said(renderer, row, "user") == "One?Two?"
    assert said(renderer, row, "assistant") == "Yes.No."


def call(name: str, **arguments: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def test_calls_of_tools_are_template_and_their_results_have_a_role() -> None:
    asked, answered = chat("Where?", "There.")
    asking = {"role": "assistant", "content": "", "tool_calls": [call("look", place='"here"')]}
    told = {"role": "tool", "content": "It is there."}
    renderer = with_template(KEEPS)
    row = one(renderer, [asked, asking, told, answered])
    assert said(renderer, row, "tool") == "It is there."
    assert said(renderer, row, "assistant") == "There."
    written = "".join(renderer.tokenizer.decode(row.ids[row.template].tolist()))
    assert '{"name": "look", "arguments": {"place": "\\"here\\""}}' in written
    left_out, refused = (
        with_template(template).chats([[asked, asking, told, answered]])[0]
        for template in (CHATML, GEMMA)
    )
    assert str(left_out) == "the template leaves out calls of tools (a chat with tools)"
    assert "Roles must alternate" in str(refused)


def test_empty_turns_and_contents_that_a_template_quotes() -> None:
    row = one(renderer := with_template(KEEPS), chat("Hello", "", "Again", "Hi"))
    assert said(renderer, row, "assistant") == "Hi"
    quoting = with_template(KEEPS.replace("{{ m.content }}", "{{ m.content | tojson }}"))
    assert said(quoting, one(quoting, chat('a "b"', "c")), "user") == 'a \\"b\\"'


def test_a_template_that_fails_on_a_chat_is_a_reason() -> None:
    (reason,) = with_template(KEEPS.replace("m.content", "m.content + 1")).chats([chat("a", "b")])
    assert str(reason) == "the template refuses it (TypeError)"


def test_only_the_start_of_a_long_text_is_encoded() -> None:
    renderer = Renderer(wrap(trained(TURNS)), 64)
    whole = Renderer(wrap(trained(TURNS)))
    text = "one long word" * 40_000
    (short,), (full,) = renderer.plain([text]), whole.plain([text[:200_000]])
    assert 64 < len(short.ids) < len(full.ids)
    np.testing.assert_array_equal(short.ids[:64], full.ids[:64])
    assert short.whole == pytest.approx(full.whole * len(text) / 200_000, rel=0.01)


def test_rows_of_a_document_hold_its_tokens_once(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = Renderer(tokenizer)
    (row,) = renderer.plain(["A bat is an animal that flies at night. " * 9])
    parts = renderer.split(row, 32, 99)
    assert all(part.ids[0] == tokenizer.bos_token_id and part.template[0] for part in parts)
    assert {len(part.ids) for part in parts[:-1]} == {32}
    np.testing.assert_array_equal(np.concatenate([p.ids[1:] for p in parts]), row.ids[1:])
    assert [len(renderer.split(row, 32, most)) for most in (1, 2)] == [1, 2]
    turns = one(renderer, chat("Where?", "There. " * 30, "When?", "Now. " * 30))
    joined = np.concatenate([p.ids[1:] for p in renderer.split(turns, 24, 99)])
    np.testing.assert_array_equal(joined, turns.ids[1:])
