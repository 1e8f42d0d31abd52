"""From requests to tables: oracles score as they must, and both kinds stand together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.autointerp import fixtures
from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import ANNOTATORS, CONCEPTS, KEY_ENV, Run
from tests.autointerp.oracle import Behaviour
from tests.autointerp.test_explain_lexical import MANY, annotate, make_many
from workflow_scripts.autointerp.detection import Item, null_passed, permuted_passes, score_items
from workflow_scripts.autointerp.score_statistics import Gate
from workflow_scripts.autointerp.settings import GateMargin

GATE = Gate(GateMargin().gate_margin)
WORDS = {"anchor": "encyclopedic", "lambda": "source_code", "import": "source_code"}


def _scores(contexts: Path, folder: Path, annotator: str) -> pd.DataFrame:
    with FakeServer(Behaviour(annotator=annotator, concepts=WORDS)) as server:
        run = Run(contexts, folder, server.url, folder / "cache", held_out=40, null=20)
        run.everything()
    return pd.read_parquet(run.llm("scores"))


def test_an_oracle_scores_one_and_passes(contexts: Path, tmp_path: Path) -> None:
    scores = _scores(contexts, tmp_path, "oracle")
    assert (scores[["auroc", "balanced_accuracy"]] >= 0.97).all(axis=None)
    assert (scores[["auroc_top", "auroc_quantile", "auroc_random"]] >= 0.97).all(axis=None)
    assert (scores["balanced_accuracy_low"] < scores["balanced_accuracy"]).all()
    assert (scores["balanced_accuracy_low"] > 0.8).all()
    assert scores["gate_passed"].all()
    assert (scores["positives"] >= 10).all()


def test_an_inverted_oracle_scores_zero_and_fails(contexts: Path, tmp_path: Path) -> None:
    scores = _scores(contexts, tmp_path, "inverted")
    assert (scores[["auroc", "balanced_accuracy"]] <= 0.03).all(axis=None)
    assert not scores["gate_passed"].any()


@pytest.mark.parametrize("annotator", ["always_yes", "always_no"])
def test_one_answer_to_everything_scores_exactly_half(
    contexts: Path, tmp_path: Path, annotator: str
) -> None:
    scores = _scores(contexts, tmp_path, annotator)
    assert (scores[["auroc", "balanced_accuracy"]] == 0.5).all(axis=None)
    assert not scores["gate_passed"].any()


def test_a_blind_annotator_scores_half_in_the_mean_and_fails(
    contexts: Path, tmp_path: Path
) -> None:
    scores = _scores(contexts, tmp_path, "blind")
    # Four latents of 20 + 20 contexts: a standard error of 0.05.
    assert scores["auroc"].mean() == pytest.approx(0.5, abs=0.15)
    assert scores["balanced_accuracy"].mean() == pytest.approx(0.5, abs=0.15)
    assert not scores["gate_passed"].any()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    annotate(folder, *make_many(folder))
    return folder


@pytest.mark.parametrize("annotator", ["oracle", "blind"])
def test_permuted_explanations_rarely_pass_the_gate(
    many: Path, tmp_path: Path, annotator: str
) -> None:
    with FakeServer(Behaviour(annotator=annotator)) as server:
        run = Run(many, tmp_path, server.url, tmp_path / "cache", held_out=40, null=20)
        assert run.purpose("explain") == run.purpose("score") == 0
        own = pd.read_parquet(run.llm("scores"))
        explanations = pd.read_parquet(run.llm("explanations"))
        explanations["explanation"] = np.roll(explanations["explanation"], 1)
        explanations.to_parquet(run.llm("explanations"), index=False)
        assert run.purpose("score") == 0
    permuted = pd.read_parquet(run.llm("scores"))
    assert len(permuted) == len(MANY)
    assert own["gate_passed"].mean() == pytest.approx(float(annotator == "oracle"), abs=0.1)
    assert permuted["gate_passed"].mean() <= 0.1
    summary = json.loads(run.file("score", "summary.json").read_text())
    assert summary["null_passed"] <= 0.1


def test_a_latent_s_own_permuted_explanation_is_not_in_its_bar() -> None:
    # Two latents of twenty suit every explanation: 10 % of all, but 5 % of what the others leave.
    null = np.full((20, 5), 0.5)
    null[:2] = 0.9
    count = np.full(20, 50)
    passed = permuted_passes(null, count, count, GATE)
    assert passed.tolist() == [True] * 10 + [False] * 90
    null[5] = np.nan
    assert len(permuted_passes(null, count, count, GATE)) == 95


def test_every_permuted_explanation_passes_a_gate_that_asks_nothing() -> None:
    rng = np.random.default_rng(0)
    count = np.full(400, 50)
    null = rng.normal(0.5, 0.05, (400, 1))
    assert permuted_passes(null, count, count, Gate(-9.0, 0.0)).mean() > 0.99
    assert permuted_passes(null, count, count, Gate(0.05, 95.0)).mean() <= 0.05


def _judged(
    rng: np.random.Generator, kind: str, items: int, lead: Sequence[float]
) -> Iterator[Item]:
    """Judge ``items`` contexts per latent; the active ones lead by ``lead`` standard deviations."""
    for latent, advantage in enumerate(lead):
        for number, noise in enumerate(rng.normal(size=items)):
            active = number % 2 == 0
            score = round(50 + 12 * (noise + advantage * active))
            yield Item(latent, "a", 0, kind, active, False, "top", score, "ok")


def _scored(items: Sequence[Item], latents: int) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"latent": range(latents), "annotator": "a", "replicate": 0, "status": "not_run"}
    ).set_index(["latent", "annotator", "replicate"], drop=False)
    return score_items(frame, items, GATE)


def test_strata_of_active_contexts_are_scored_apart() -> None:
    def judged() -> Iterator[Item]:
        for number in range(40):
            active, stratum = number % 2 == 0, ("top", "quantile")[number % 4 == 2]
            score = 90 if active and stratum == "top" else 10
            yield Item(
                0, "a", 0, "score", active, False, stratum if active else "none", score, "ok"
            )

    scores = _scored(list(judged()), 1).iloc[0]
    assert scores[["auroc_top", "auroc_quantile", "auroc"]].tolist() == [1.0, 0.5, 0.75]
    assert scores["balanced_accuracy"] == 0.75
    assert scores["balanced_accuracy_low"] < 0.75 < scores["balanced_accuracy_high"]


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_a_null_of_fewer_items_sets_the_bar_of_equally_many(spread: float) -> None:
    latents, rng = 1000, np.random.default_rng(1)
    lead = rng.normal(0, spread, latents).tolist()
    # Null and real scores are alike here, but for the number of items: 20 and 100.
    items = [*_judged(rng, "null", 20, lead), *_judged(rng, "score", 100, lead)]
    scores = _scored(items, latents)
    auroc, low, equal, null = (
        scores[name].to_numpy() for name in ("auroc", "auroc_low", "null_equal", "null_auroc")
    )
    assert GATE.null_bar(equal) == pytest.approx(GATE.null_bar(auroc), abs=0.02)
    assert GATE.null_bar(null) > GATE.null_bar(equal) + 0.04
    assert (scores["gate_passed"] == GATE.passes(auroc, low, equal)).all()
    assert null_passed(scores, Gate(-9.0, 0.0)) == pytest.approx(1.0, abs=0.01)
    assert null_passed(scores, GATE) == pytest.approx(scores["gate_passed"].mean(), abs=0.02)


def test_a_null_of_more_items_is_widened() -> None:
    latents, rng = 1000, np.random.default_rng(3)
    lead = [0.0] * latents
    scores = _scored([*_judged(rng, "null", 100, lead), *_judged(rng, "score", 6, lead)], latents)
    bar, null = (GATE.null_bar(scores[name].to_numpy()) for name in ("null_equal", "null_auroc"))
    # Of three pairs of contexts the AUROC comes in steps of 1 / 9.
    assert bar == pytest.approx(GATE.null_bar(scores["auroc"].to_numpy()), abs=1 / 9)
    assert bar > null + 0.2
    assert scores["null_equal"].between(0.0, 1.0).all()


def test_a_null_of_as_many_items_stays_as_it_is() -> None:
    rng = np.random.default_rng(2)
    lead = [0.0] * 50
    scores = _scored([*_judged(rng, "null", 40, lead), *_judged(rng, "score", 40, lead)], 50)
    assert scores["null_equal"].to_numpy() == pytest.approx(scores["null_auroc"].to_numpy())
    alone = _scored([*_judged(rng, "null", 20, lead[:1]), *_judged(rng, "score", 40, lead[:1])], 1)
    assert alone["null_equal"].tolist() == alone["null_auroc"].tolist()


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
        assert run.call("explain") == run.parse("explain") == 0
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
    explained = explanations.set_index(["latent", "annotator"])
    assert explained["status"][2, "second"] == "refused"
    assert explained["explanation"][2, "second"] == ""


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
    # The last of the tables: only counted words are scored token by token.
    assert table.groupby("annotator")["token_f1"].count().to_dict() == {
        "first": 0,
        "lexical": 4,
        "second": 0,
    }


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
    assert agreement["llm"]["pairs"][0]["both"] == 3
    assert agreement["llm"]["alpha"]["value"] == 1.0
    assert agreement["reliable"] is True


def test_the_ledger_accounts_for_every_answer(joint: Run) -> None:
    ledger = pd.read_csv(joint.out / "ledger.csv")
    assert sum(ledger["kept"] == "yes") == len(list(joint.cache.glob("[0-9a-f][0-9a-f]/*.json")))
    assert ledger["key"].is_unique
    assert set(ledger["host"]) == {joint.url.split("/")[2]}
    assert (ledger["input_tokens"] > 0).all()
