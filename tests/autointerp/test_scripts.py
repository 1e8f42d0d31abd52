"""Names, prompts and near-duplicates of latents in text whose characters are several tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.autointerp.test_explain_lexical import annotate
from tests.common.test_taxonomy import SHIPPED
from tests.latents.scripts import byte_level
from tests.latents.test_token_text import context_of
from workflow_scripts.autointerp.context_schema import POSITIVE, TRAIN
from workflow_scripts.autointerp.lexical.lexicon import match
from workflow_scripts.autointerp.prompting.contexts import ContextTable
from workflow_scripts.autointerp.prompting.near_duplicates import drop_near_duplicates
from workflow_scripts.autointerp.prompting.templates import encode
from workflow_scripts.autointerp.windows import merge_words, read_windows
from workflow_scripts.common.taxonomy import load_taxonomy
from workflow_scripts.latents.example_contexts import write_windows

LANGUAGES = {
    "chinese": (
        "",
        "税款",
        "天气 公园 音乐 花园 河边 城堡 火箭 窗户 老师 朋友 市场 石头 隧道 梯子 面包 信号 胡椒 "
        "发动 冬天 镜子 我们 写给 一个 一座 看到 旧桥 铜灯 纸线",
    ),
    "hindi": (
        " ",
        "किताब",
        "मैं तुम हिन्दी पढ़ता हूँ राजा रानी घर पानी फूल नदी पुल बाज़ार दोस्त शिक्षक पत्थर सीढ़ी "
        "रोटी खिड़की संगीत मौसम सर्दी चिट्ठी लिखना देखना बड़ा छोटा पुराना",
    ),
    "thai": (
        "",
        "ภาษี",
        "อากาศ สวน ดนตรี ดอกไม้ แม่น้ำ ปราสาท จรวด หน้าต่าง ครู เพื่อน ตลาด หิน อุโมงค์ บันได "
        "ขนมปัง สัญญาณ พริกไทย เครื่องยนต์ ฤดูหนาว กระจก พวกเรา เขียน ให้ หนึ่ง เห็น เก่า สะพาน",
    ),
}
DOCUMENTS = 240


def make_examples(folder: Path, language: str) -> tuple[Path, Path]:
    """Write contexts of a latent that fires on the bytes of one word, and a background."""
    blank, target, words = LANGUAGES[language]
    rng = np.random.default_rng(0)
    tokenizer = byte_level(["none of it"], 0)
    texts = []
    for document in range(DOCUMENTS):
        chosen = rng.choice(words.split(), 16).tolist()
        if document % 2:
            chosen[int(rng.integers(16))] = target
        texts.append(blank.join(chosen))
    texts[3] = texts[1] + blank + words.split()[0]  # nearly the same, which is one too many
    context = context_of([tokenizer.encode(text) for text in texts])
    fires = []
    for text in texts:
        before, found, after = text.partition(target)
        fires += [
            np.repeat(
                np.array([0, 1, 0], np.float32), [len(p.encode()) for p in (before, found, after)]
            )
        ]
    start, end = context.row_starts[:-1], context.row_starts[1:]
    number = np.arange(DOCUMENTS)
    windows = pd.DataFrame({"row": number, "start": start, "end": end})
    examples, background = folder / "examples.parquet", folder / "background.parquet"
    write_windows(background, [(windows, None)], context, tokenizer)
    windows["latent"], windows["latent_max"] = 0, 1.0
    windows["split"] = np.where(number % 4 < 2, "explain", "verify")
    silent = np.where(number % 8 < 4, "random_negative", "hard_negative")
    windows["kind"] = np.where(number % 2 == 1, "positive", silent)
    windows["stratum"] = np.where(number % 2 == 1, "top", "none")
    write_windows(examples, [(windows, np.concatenate(fires))], context, tokenizer)
    return examples, background


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_latent_on_a_word_is_named_and_shown_by_it(language: str, tmp_path: Path) -> None:
    blank, target, _ = LANGUAGES[language]
    examples, background = make_examples(tmp_path, language)
    annotate(tmp_path, examples, background)
    explanation = pd.read_parquet(tmp_path / "lexical/explanations.parquet")["explanation"][0]
    assert "�" not in explanation
    quoted = explanation.split('"')[1::2]
    # Of a script without blanks, the word's pairs of characters; else the word.
    shown = {pair for pair in quoted if len(pair) > 1}
    assert shown, explanation
    assert all(word in target for word in shown) if not blank else shown == {target}
    scores = pd.read_parquet(tmp_path / "lexical/scores.parquet")
    assert scores["auroc"][0] > 0.98
    assert scores["token_recall"][0] == 1
    contexts = ContextTable(tmp_path / "contexts.parquet").of(0, TRAIN)
    for context in contexts:
        marks = f"<<{target}>>" if context.kind == POSITIVE else target
        assert encode(context.marked()).count(marks) == (context.kind == POSITIVE)
        assert "�" not in context.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_context_that_nearly_repeats_another_is_dropped(language: str, tmp_path: Path) -> None:
    examples, _ = make_examples(tmp_path, language)
    windows = read_windows(pq.read_table(examples))
    order = np.arange(DOCUMENTS)
    kept = drop_near_duplicates(windows, order, np.zeros(DOCUMENTS, np.int64), 0.8)
    assert set(order) - set(kept.tolist()) == {3}


def test_a_lexicon_finds_words_inside_text_without_blanks(tmp_path: Path) -> None:
    taxonomy = load_taxonomy(SHIPPED)
    first, second = taxonomy.categories[:2]
    chinese = first.lexicon.model_copy(update={"words": ("公园",), "phrases": ("天气公园",)})
    hindi = second.lexicon.model_copy(update={"words": ("किताब",), "phrases": ("बड़ा घर",)})
    changed = taxonomy.model_copy(
        update={
            "categories": (
                first.model_copy(update={"lexicon": chinese, "register_": "any"}),
                second.model_copy(update={"lexicon": hindi, "register_": "any"}),
            )
        }
    )
    for language, texts, wanted in (
        ("chinese", ["好天气公园", "公园", "公 园"], [["公园", "天气公园"], ["公园"], []]),
        ("hindi", ["एक बड़ा घर", "किताब", "किता"], [["बड़ा घर"], ["किताब"], []]),
    ):
        tokenizer = byte_level(["none of it"], 0)
        context = context_of([tokenizer.encode(text) for text in texts])
        start, end = context.row_starts[:-1], context.row_starts[1:]
        path = tmp_path / f"{language}.parquet"
        rows = pd.DataFrame({"row": np.arange(len(texts)), "start": start, "end": end})
        write_windows(path, [(rows, None)], context, tokenizer)
        windows = read_windows(pq.read_table(path))
        matches = match(windows, merge_words(windows), changed, np.ones(len(texts), np.bool_))
        hits = matches.hits.toarray().astype(bool)
        own = {name for names in wanted for name in names}
        found = [
            sorted(own & {name for name, hit in zip(matches.names, row, strict=True) if hit})
            for row in hits
        ]
        assert found == wanted
