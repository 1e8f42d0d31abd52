"""Both models answer the same prompts greedily; equal models give equal answers."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.comparison.test_evaluate_behaviour import DOCUMENTS, shard_of, true_labels
from tests.models.random_models import write_model
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import compare_answers, generate_answers
from workflow_scripts.comparison.answer_prompts import AnswerPrompt, read_prompts
from workflow_scripts.comparison.compare_answers import paired_shares
from workflow_scripts.comparison.generate_answers import answer, distance
from workflow_scripts.dataset.shards import write_shard
from workflow_scripts.models.loading import load_model

CPU = torch.device("cpu")


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Tokens of chats and plain texts."""
    path = tmp_path / "shard000.h5"
    write_shard(path, shard_of(DOCUMENTS, 0), {})
    true_labels([shard_of(DOCUMENTS, 0)]).to_parquet(tmp_path / "labels.parquet")
    return path


def test_prompts_end_where_the_answer_begins(shard: Path) -> None:
    prompts, stops = read_prompts([shard], "score", np.arange(len(DOCUMENTS)))
    of = {prompt.document: prompt for prompt in prompts}
    ids = shard_of(DOCUMENTS, 0)
    whole = {n: ids.ids[ids.row(n)] for n in of}
    # uuuuaaaa with the template t.t.t..t: an answer of two tokens, ended by the template.
    assert of[1].ids.tolist() == whole[1][:5].tolist()
    assert of[1].given.tolist() == whole[1][5:7].tolist()
    assert whole[1][7] in stops
    # Six tokens of plain text after BOS and a token: their half.
    assert of[0].ids.tolist() == whole[0][:3].tolist()
    assert of[0].given.tolist() == whole[0][3:].tolist()
    assert 8 not in of  # no answer
    assert [len(p.ids) for p in prompts] == sorted(len(p.ids) for p in prompts)


@pytest.mark.parametrize("architecture", ["gemma2", "gpt2", "mistral"])
def test_answers_are_those_of_a_prompt_alone(tmp_path: Path, architecture: str) -> None:
    model = load_model(write_model(tmp_path, architecture), torch.float32, CPU)
    rng = np.random.default_rng(0)
    prompts = [
        AnswerPrompt(
            n, np.concatenate([[1], rng.integers(3, 40, size)]).astype(np.int32), np.zeros(0)
        )
        for n, size in enumerate((3, 5, 9))
    ]
    stops = [11, 17]
    answers = list(answer(model, prompts, 12, stops, 1000))
    for prompt, (found, ended) in zip(prompts, answers, strict=True):
        ids = prompt.ids.astype(np.int64).tolist()
        expected: list[int] = []
        while len(expected) < 12:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids + expected])).logits[0, -1]
            token = int(logits.argmax())
            if token in (2, *stops):
                break
            expected.append(token)
        assert found.tolist() == expected
        assert ended == (len(expected) < 12)


def test_distance_is_levenshtein() -> None:
    def slow(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        swap = slow(a[1:], b[1:]) + (a[0] != b[0])
        return min(swap, slow(a[1:], b) + 1, slow(a, b[1:]) + 1)

    rng = np.random.default_rng(0)
    for n, m in product(range(1, 5), repeat=2):
        a, b = rng.integers(0, 3, n), rng.integers(0, 3, m)
        expected = slow(tuple(a.tolist()), tuple(b.tolist())) / max(n, m)
        assert distance(a, b) == pytest.approx(expected)
    nothing = np.zeros(0, dtype=np.int64)
    assert (distance(nothing, nothing), distance(nothing, np.ones(3))) == (0.0, 1.0)


def test_shares_have_an_interval_where_nothing_differs() -> None:
    before, after = np.zeros(12, np.bool_), np.zeros(12, np.bool_)
    same = paired_shares(before, after, 0.95)
    assert same.estimate == 0
    assert same.low < 0 < same.high
    after[:] = True
    gained = paired_shares(before, after, 0.95)
    assert gained.estimate == 1
    assert 0.6 < gained.low < gained.high <= 1


def run(folder: Path, models: list[Path]) -> pd.DataFrame:
    """Run both steps and return the table of differences."""
    common = [f"--labels={folder / 'labels.parquet'}", "--seed=0"]
    flags = [
        *(f"--{side}={m}" for side, m in zip(("baseline", "candidate"), models, strict=True)),
        *(f"--tokens={folder / 'shard000.h5'}", f"--tokenizer={models[0]}", "--device=cpu"),
        *("--answer-tokens=6", "--threads=1", f"--output={folder / 'answers.parquet'}"),
    ]
    assert generate_answers.main([*flags, *common]) == 0
    flags = [f"--answers={folder / 'answers.parquet'}", f"--output={folder / 'answers.csv'}"]
    assert compare_answers.main([*flags, *common]) == 0
    return read_csv(folder / "answers.csv")


def test_only_models_that_differ_answer_differently(tmp_path: Path, shard: Path) -> None:
    models = [write_model(tmp_path / name, "llama", seed) for name, seed in (("a", 0), ("b", 1))]
    same = run(tmp_path, [models[0], models[0]])
    assert (same["difference"] == 0).all()
    assert set(same["label"]) == {"news", "advice", "arithmetic"}
    other = run(tmp_path, models)
    assert list(other) == list(compare_answers.COLUMNS)
    distances = other[other["measure"] == "distance"]
    assert (distances["difference"] > 0.5).all()
    table = pd.read_parquet(tmp_path / "answers.parquet")
    assert list(table) == list(generate_answers.COLUMNS)
    assert (table["tokens_candidate"] <= 6).all()
    first = (tmp_path / "answers.parquet").read_bytes()
    run(tmp_path, models)
    assert (tmp_path / "answers.parquet").read_bytes() == first


def test_columns_are_described() -> None:
    text = Path(compare_answers.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    for ending, columns in (
        ("parquet", generate_answers.COLUMNS),
        ("csv", compare_answers.COLUMNS),
    ):
        section = sections[f"`answers/<comparison>.{ending}`"]
        assert re.findall(r"^\| `(\w+)`", section, re.M) == list(columns)
