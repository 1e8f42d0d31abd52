"""From requests to tables: oracles score as they must, and both kinds stand together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.autointerp import fixtures
from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import ANNOTATORS, CONCEPTS, KEY_ENV, Run
from tests.autointerp.oracle import Behaviour
from tests.autointerp.test_explain_lexical import annotate
from workflow_scripts.autointerp.statistics import Gate

WORDS = {"anchor": "encyclopedic", "lambda": "source_code", "import": "source_code"}


def _scores(contexts: Path, folder: Path, annotator: str) -> pd.DataFrame:
    with FakeServer(Behaviour(annotator=annotator, concepts=WORDS)) as server:
        run = Run(contexts, folder, server.url, folder / "cache", held_out=40, null=20)
        run.everything()
    return pd.read_parquet(run.llm("scores"))


@pytest.mark.parametrize(
    ("annotator", "low", "high"),
    [
        ("oracle", 0.97, 1.0),
        ("blind", 0.3, 0.7),
        ("inverted", 0.0, 0.03),
        ("always_yes", 0.5, 0.5),
        ("always_no", 0.5, 0.5),
    ],
)
def test_annotators_score_as_they_must(
    contexts: Path, tmp_path: Path, annotator: str, low: float, high: float
) -> None:
    scores = _scores(contexts, tmp_path, annotator)
    # A blind annotator is right by chance: single latents stray from 0.5, their mean does not.
    aurocs = scores["auroc"] if annotator != "blind" else pd.Series([scores["auroc"].mean()])
    assert aurocs.between(low, high).all()
    assert scores["balanced_accuracy"].mean() == pytest.approx((low + high) / 2, abs=0.2)
    assert scores["gate_passed"].all() == (annotator == "oracle")
    assert (scores["positives"] >= 10).all()


def test_permuted_explanations_rarely_pass_the_gate() -> None:
    rng = np.random.default_rng(0)
    null = rng.beta(40, 40, 2000)
    low = null - 0.15
    assert Gate().passes(null, low, null).mean() <= 0.1


@pytest.mark.parametrize(("annotator", "expected"), [("oracle", 1.0), ("always_yes", 0.5)])
def test_marks_are_judged_too_when_asked_for(
    contexts: Path, tmp_path: Path, annotator: str, expected: float
) -> None:
    with FakeServer(Behaviour(annotator=annotator)) as server:
        run = Run(contexts, tmp_path, server.url, tmp_path / "cache", held_out=20, null=8)
        run.more = ("--fuzz", "12")
        assert run.purpose("explain") == run.purpose("score") == 0
    scores = pd.read_parquet(run.llm("scores"))
    assert scores["fuzz_auroc"].min() == pytest.approx(expected, abs=0.25)
    assert scores["fuzz_auroc"].mean() == pytest.approx(expected, abs=0.1)
    summary = json.loads(run.file("score", "summary.json").read_text())
    assert summary["null_passed"] <= 0.1


@pytest.mark.parametrize("obedient", [True, False])
def test_canaries_tell_whether_planted_orders_are_followed(
    contexts: Path, tmp_path: Path, obedient: bool
) -> None:
    with FakeServer(Behaviour(obedient=obedient, concepts=WORDS)) as server:
        run = Run(contexts, tmp_path, server.url, tmp_path / "cache")
        run.more = ("--canaries", "3")
        assert run.purpose("explain") == run.purpose("classify") == 0
    report = json.loads(run.file("classify", "summary.json").read_text())["canaries"]
    assert report == {"planted": 3, "answered": 3, "followed": 3 if obedient else 0}
    labels = pd.read_parquet(run.llm("labels"))
    assert set(labels["category"]) == {"encyclopedic", "source_code", "unassigned"}


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, SENTINEL)
        yield _joint(tmp_path_factory.mktemp("joint"))


def _joint(folder: Path) -> Run:
    texts = fixtures.random_documents(300, CONCEPTS)
    planted = [fixtures.on_words(name, *words) for name, words in CONCEPTS.items()]
    planted.append(fixtures.on_words("nowhere", "zebra"))
    examples, background = fixtures.make_examples(texts, planted, folder, background=50)
    annotate(folder, examples, background)
    # Of latent 2 the second annotator's explanation is refused.
    with FakeServer(Behaviour(concepts=WORDS)) as server:
        run = Run(folder, folder / "out", server.url, folder / "cache", ANNOTATORS, null=10)
        assert run.build("explain") == 0
        order = [
            json.loads(line)["id"]
            for line in run.file("explain", "requests.jsonl").read_text().splitlines()[1:]
        ]
        server.behaviour.first = {order.index("explain/2/second/0") + 1: "refusal"}
        run.flags = ("--concurrency", "1")
        assert run.call("explain") == 0
        assert run.parse("explain", "--max-failures", "0.2") == 0
        assert run.purpose("classify") == run.purpose("score") == 0
    run.collect(folder / "lexical")
    return run


def test_every_latent_has_a_row_per_annotator_whatever_happened(joint: Run) -> None:
    labels = pd.read_parquet(joint.out / "labels.parquet")
    assert len(labels) == 5 * 3
    status = labels.set_index(["latent", "annotator"])["status"]
    assert set(status.xs(4, level="latent")) == {"insufficient_examples"}
    assert status[2, "second"] == "not_run"
    assert status[2, "first"] == "ok"
    explanations = pd.read_parquet(joint.out / "explanations.parquet")
    told = explanations.set_index(["latent", "annotator"])
    assert told["status"][2, "second"] == "refused"
    assert told["explanation"][2, "second"] == ""


def test_a_failure_never_has_a_category(joint: Run) -> None:
    labels = pd.read_parquet(joint.out / "labels.parquet")
    failed = labels[(labels["annotator_kind"] == "llm") & (labels["status"] != "ok")]
    assert len(failed) == 3
    assert set(failed["category"]) == {""}
    assert failed["score"].isna().all()


def test_kinds_are_told_apart_in_every_row(joint: Run) -> None:
    for name in ("explanations", "labels", "scores"):
        table = pd.read_parquet(joint.out / f"{name}.parquet")
        lexical = table["annotator"] == "lexical"
        assert (table.loc[lexical, "annotator_kind"] == "lexical").all()
        assert (table["llm_used"] == ~lexical).all()
        assert (table.loc[~lexical, "annotator_kind"] == "llm").all()


def test_the_gate_keeps_the_answer_beside_the_verdict(joint: Run) -> None:
    labels = pd.read_parquet(joint.out / "labels.parquet").set_index(["latent", "annotator"])
    assert labels["category"][1, "first"] == "source_code"
    assert labels["class"][1, "first"] == "technical"
    assert labels["gate_passed"][1, "first"]
    gated = labels[(labels["category"] == "unassigned") & ~labels["gate_passed"]]
    assert (gated.loc[gated["annotator_kind"] == "llm", "status"] == "ok").all()


def test_summary_compares_with_the_lexical_floor(joint: Run) -> None:
    summary = json.loads((joint.out / "summary.json").read_text())
    floor = summary["floor"]["first"]
    assert floor["latents"] == 4
    assert floor["low"] <= floor["lead"] <= floor["high"]
    assert floor["beats"] is (floor["low"] > 0)
    assert summary["annotators"]["second"]["statuses"]["not_run"] == 1


def test_agreement_leaves_failures_out(joint: Run) -> None:
    agreement = json.loads((joint.out / "agreement.json").read_text())
    assert agreement["llm"]["raters"] == ["first/0", "second/0"]
    assert agreement["llm"]["missing"] == 3
    assert agreement["llm"]["pairs"][0]["latents"] == 3
    assert agreement["llm"]["alpha"]["value"] == 1.0
    assert agreement["reliable"] is True


def test_the_ledger_accounts_for_every_answer(joint: Run) -> None:
    ledger = pd.read_csv(joint.out / "ledger.csv")
    assert len(ledger) == len(list(joint.cache.glob("[0-9a-f][0-9a-f]/*.json")))
    assert ledger["key"].is_unique
    assert set(ledger["host"]) == {joint.url.split("/")[2]}
    assert (ledger["input_tokens"] > 0).all()
