"""Reading some latents at a time gives what reading all at once gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.autointerp.memory import copied
from tests.common.test_taxonomy import SHIPPED
from workflow_scripts.autointerp import (
    build_requests,
    explain_lexical,
    latent_tables,
    select_contexts,
)
from workflow_scripts.autointerp.context_schema import CONTEXT_SCHEMA, HELD_OUT, TRAIN
from workflow_scripts.autointerp.latent_tables import LatentTable
from workflow_scripts.autointerp.lexical import features
from workflow_scripts.autointerp.llm.requests import read_requests
from workflow_scripts.autointerp.prompting import contexts
from workflow_scripts.autointerp.prompting.contexts import ContextTable
from workflow_scripts.autointerp.prompting.request_builder import Builder, Subject
from workflow_scripts.autointerp.settings import (
    MAX_OUTPUT,
    Annotator,
    CategoryRule,
    ContextCounts,
    GateMargin,
    PromptCounts,
    Purpose,
)
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.taxonomy import load_taxonomy

COPIES = 6
TAXONOMY = load_taxonomy(SHIPPED)


@pytest.fixture(scope="module")
def shuffled(contexts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return contexts of 24 latents, the rows in no order, in small row groups."""
    table = copied(contexts / "contexts.parquet", COPIES).sample(frac=1.0, random_state=0)
    path = tmp_path_factory.mktemp("shuffled") / "contexts.parquet"
    table.to_parquet(path, index=False, row_group_size=100)
    assert pq.ParquetFile(path).num_row_groups > 10
    return path


@pytest.mark.parametrize("size", [1, 5, 100])
def test_batches_hold_the_rows_of_their_latents_in_order(
    shuffled: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_tables, "READ_LATENTS", 7)
    monkeypatch.setattr(latent_tables, "SCAN_ROWS", 30)
    whole = pd.read_parquet(shuffled)
    table = LatentTable(shuffled, CONTEXT_SCHEMA.names, ("absent",))
    latents = table.latents()
    assert latents.tolist() == list(range(0, 240, 10))
    wanted = latents[3:21]
    parts = [part.to_pandas() for part in table.batches(wanted, size)]
    assert all(part["latent"].nunique() <= size for part in parts)
    for part in parts:
        expected = whole[whole["latent"].isin(part["latent"].unique())]
        pd.testing.assert_frame_equal(part, expected.reset_index(drop=True))
    assert sum(map(len, parts)) == whole["latent"].isin(wanted).sum()


def test_a_missing_column_is_told(shuffled: Path) -> None:
    with pytest.raises(UserError, match="no column 'split'"):
        LatentTable(shuffled, ("latent", "split"))


@pytest.mark.parametrize("held", [1, 5, 100])
def test_contexts_of_a_latent_are_its_rows_whatever_is_held(
    shuffled: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "HELD_LATENTS", held)
    whole = pd.read_parquet(shuffled)
    table = ContextTable(shuffled)
    for latent in (50, 60, 230, 0, 60):
        for part in (TRAIN, HELD_OUT):
            mine = whole[(whole["latent"] == latent) & (whole["part"] == part)]
            shown = table.of(latent, part)
            assert [c.document for c in shown] == mine["document"].tolist()
            assert [c.kind for c in shown] == mine["kind"].tolist()
            assert [c.text for c in shown] == mine["pieces"].map("".join).tolist()
            values = np.concatenate([c.activations for c in shown])
            assert (values == np.concatenate(mine["activations"].tolist())).all()


def test_selection_does_not_hang_on_what_is_read_at_once(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = copied(contexts / "examples.parquet", COPIES).sample(frac=1.0, random_state=1)
    examples.to_parquet(tmp_path / "examples.parquet", index=False, row_group_size=200)
    tables = []
    for batch, read in ((500, 500), (3, 8)):
        monkeypatch.setattr(select_contexts, "BATCH", batch)
        monkeypatch.setattr(latent_tables, "READ_LATENTS", read)
        chosen, latents = (tmp_path / f"{name}{batch}" for name in ("contexts", "latents"))
        select_contexts.select_contexts(
            tmp_path / "examples.parquet", ContextCounts(), 0, chosen, latents
        )
        tables.append([pd.read_parquet(path) for path in (chosen, latents)])
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("purpose", ["explain", "classify", "score"])
def test_requests_are_those_of_the_permuted_tasks_in_turn(
    shuffled: Path, tmp_path: Path, purpose: Purpose
) -> None:
    """The file that they pass through changes neither requests nor their order."""
    latents, output = tmp_path / "latents.parquet", tmp_path / "requests.jsonl"
    pd.DataFrame({"latent": range(0, 240, 10), "status": "ok"}).to_parquet(latents, index=False)
    annotators = {
        "one": Annotator(model="m"),
        "two": Annotator(model="m", prompt="paraphrase", label_seed=1),
    }
    subjects = [Subject(a, 0, n, f"told {n}") for a in annotators for n in range(0, 240, 10)]
    told = [[s.annotator, s.replicate, s.latent, s.explanation] for s in subjects]
    columns = ["annotator", "replicate", "latent", "explanation"]
    if purpose == "explain":
        subjects = [Subject(s.annotator, 0, s.latent) for s in subjects]
    explanations = tmp_path / "explanations.parquet"
    pd.DataFrame(told, columns=columns).to_parquet(explanations, index=False)
    counts = PromptCounts(held_out=12, null=8, fuzz=4, canaries=2)
    build_requests.build_requests(
        purpose,
        shuffled,
        latents,
        SHIPPED,
        annotators,
        counts,
        MAX_OUTPUT,
        {},
        0,
        "",
        output,
        tmp_path / "plan.json",
        None if purpose == "explain" else explanations,
    )
    limit = MAX_OUTPUT[purpose]
    builder = Builder(purpose, ContextTable(shuffled), TAXONOMY, annotators, counts, 0, limit)
    expected = [r for task in builder.tasks(subjects) for r in builder.requests(task)]
    shown = list(read_requests(output))
    assert shown == expected
    assert [r.subject for r in shown] != sorted(r.subject for r in shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["latents.parquet", "explanations.parquet", "plan.json", "requests.jsonl"]
    )


def test_explanations_do_not_hang_on_what_is_sorted_at_once(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for rows in (1 << 13, 5):
        monkeypatch.setattr(features, "SORTED_ROWS", rows)
        explain_lexical.explain_lexical(
            contexts / "contexts.parquet",
            contexts / "latents.parquet",
            contexts / "background.parquet",
            SHIPPED,
            CategoryRule(),
            GateMargin(),
            0,
            tmp_path / str(rows),
        )
        tables.append({path.name: path.read_bytes() for path in (tmp_path / str(rows)).iterdir()})
    assert len(tables[0]) == 4
    assert tables[0] == tables[1]
