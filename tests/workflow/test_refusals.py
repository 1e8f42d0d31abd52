"""Bad input stops a run before any job, with one sentence and no traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.run.test_settings import Raw, put, smoke
from tests.workflow import running

HUB: Raw = {"hub": "owner/name", "revision": "main"}
LLM: Raw = {
    "annotator": "llm",
    "llm": {"base_url": "http://127.0.0.1:9/v1", "annotators": {"a": {"model": "m"}}},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree without results."""
    return running.copy_tree(tmp_path_factory.mktemp("refusals"))


def refusal(tree: Path, raw: Raw, *arguments: str) -> str:
    """Return the one line by which a run with the settings ``raw`` is refused."""
    (tree / "bad.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    printed = running.snakemake(
        tree, "--cores", "1", "--configfile", "bad.yaml", *arguments, good=False
    )
    assert "Traceback" not in printed
    told = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, printed
    assert not (tree / "results").exists()
    return told[0]


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("text.tokns", 1, "text.tokns is no setting"),
        ("text.sources.f", {"kind": "jsonl", "path": "no.jsonl"}, "no.jsonl does not exist"),
        ("layers.mid", [1, 7], "asks for layer 7"),
        ("fits.pt_it.models", ["pt", "nobody"], "the unknown model nobody"),
    ],
)
def test_bad_settings(tree: Path, place: str, value: object, told: str) -> None:
    assert told in refusal(tree, put(smoke(), place, value))


def test_branch_of_a_hub_plans_but_does_not_run(tree: Path) -> None:
    raw = put(smoke(), "models.other", HUB)
    assert "models.other.revision is main, which may change" in refusal(tree, raw)
    running.snakemake(tree, "-n", "--configfile", "bad.yaml")


def test_hub_that_does_not_answer(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    source = {"kind": "huggingface", "path": "owner/data", "revision": "0" * 40}
    told = refusal(tree, put(smoke(), "text.sources.hub", source))
    assert "text.sources.hub: the data set owner/data cannot be fetched" in told


def test_disk_that_is_too_small(tree: Path) -> None:
    raw = put(put(smoke(), "text.tokens", 10**15), "text.shard_tokens", 10**15)
    told = refusal(tree, raw)
    assert re.search(r"the run smoke needs about .* TB on the disk of results, which has", told)


def test_llm_without_key(tree: Path) -> None:
    raw = put(smoke(), "autointerp", LLM)
    assert "OPENAI_API_KEY holds no key" in refusal(tree, raw)


def test_reproduction_under_another_config(tree: Path) -> None:
    assert "config/paper.yaml" in refusal(tree, smoke(), "reproduce_paper")


def test_refused_run_leaves_no_lock(tree: Path) -> None:
    refusal(tree, put(smoke(), "autointerp", LLM))
    assert not list((tree / ".snakemake").glob("locks/*"))


def test_unwritable_results(tmp_path: Path) -> None:
    tree = running.copy_tree(tmp_path)
    (tree / "results").symlink_to("/proc/self/fdinfo")  # where not even root can make a file
    (tree / "bad.yaml").write_text(yaml.safe_dump(smoke()), encoding="utf-8")
    printed = running.snakemake(tree, "-c1", "--configfile", "bad.yaml", good=False)
    assert "error: the results folder results cannot be written to" in printed


def test_paper_config_plans_without_network(tree: Path) -> None:
    printed = running.snakemake(tree, "-n", "--configfile", "config/paper.yaml", "reproduce_paper")
    rules = running.planned(printed)
    wanted = {"resolve_model", "dump_activations", "fit_crosscoder", "compare_published"}
    assert wanted <= rules
