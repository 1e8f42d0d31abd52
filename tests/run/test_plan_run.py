"""The plan against what a run leaves, and against arithmetic."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.run.test_settings import Raw, put, smoke
from tests.workflow import running
from tests.workflow.running import Run
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.run import plan_run
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.plan_run import (
    UNIQUE,
    Part,
    PlannedCalls,
    annotated,
    check_disk,
    describe,
    dumps,
    fit_flop,
    forward_flop,
    llm_calls,
    parts,
)
from workflow_scripts.run.preflight import refuse_early
from workflow_scripts.run.settings import Config

CAP: Raw = {"max_requests": 1_000_000}


@pytest.fixture
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without results."""
    monkeypatch.chdir(tmp_path)


def paper() -> Config:
    """Return the published study's settings."""
    raw: Raw = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text(encoding="utf-8"))
    raw["paper"] = None
    return load({k: v for k, v in raw.items() if v is not None})


def stage(config: Config, name: str) -> Part:
    return next(part for part in parts(config) if part.stage == name)


@pytest.mark.usefixtures("_empty")
def test_the_published_study_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    config = paper()
    part = stage(config, "activations")
    assert part.files == 3 * 20
    # Three models, 3,584 values of two bytes for each of 100M tokens; the width is a guess.
    assert part.bytes == part.missing == pytest.approx(3 * 3584 * 2 * 1e8, rel=0.03)
    assert forward_flop(config) == pytest.approx(3 * 2 * 9e9 * 1e8)
    monkeypatch.setattr(plan_run, "free_bytes", lambda: 1e12)
    with pytest.raises(UserError, match=r"the run paper needs about 2\.\d+ TB on the disk"):
        check_disk(config)


@pytest.mark.usefixtures("_empty")
def test_depth_counts_where_it_is_known() -> None:
    deeper = put(smoke(), "layers.mid", [1, 2])
    assert 2 * forward_flop(load(smoke())) == forward_flop(load(deeper))


@pytest.mark.usefixtures("_empty")
def test_calls_of_an_llm() -> None:
    assert llm_calls(load(smoke())) == {}
    llm = {
        "base_url": "http://x/v1",
        "annotators": {"a": {"model": "m"}, "b": {"model": "n"}},
    } | CAP
    raw = put(smoke(), "autointerp", {"annotator": "llm", "llm": {**llm, "held_out": 52}})
    calls = llm_calls(load(raw))
    subjects = calls["explain"].calls
    assert subjects == calls["classify"].calls
    assert subjects % (2 * (20 + UNIQUE)) == 0
    assert calls["score"].calls == subjects * (11 + 4)  # 52 and 20 contexts, five at a time
    assert "LLM score" in describe(load(raw))
    assert "no price is configured for m, n" in describe(load(raw))


@pytest.mark.usefixtures("_empty")
def test_calls_of_an_llm_cost_what_their_models_do() -> None:
    one = {
        "base_url": "http://x/v1",
        "annotators": {"a": {"model": "m"}},
        "prices": {"m": [2, 8]},
    } | CAP
    settings = load(put(smoke(), "autointerp", {"annotator": "llm", "llm": one}))
    calls = llm_calls(settings)
    for count in calls.values():
        expected = (2 * count.tokens_in + 8 * count.tokens_out) / 1e6
        assert count.cost == pytest.approx(expected)
        assert count.cost > 0
    total = sum(count.cost for count in calls.values())
    told = describe(settings)
    assert f"LLM          cost {total:,.2f} in the unit of" in told
    most = sum(count.cost for count in llm_calls(settings, math.inf).values())
    assert most > total
    assert f", {most:,.2f} if they are as many as can be" in told
    both = {**one, "annotators": {"a": {"model": "m"}, "b": {"model": "n"}}}
    more = load(put(smoke(), "autointerp", {"annotator": "llm", "llm": both}))
    assert [c.cost for c in llm_calls(more).values()] == [c.cost for c in calls.values()]
    assert [c.calls for c in llm_calls(more).values()] == [2 * c.calls for c in calls.values()]
    assert f"LLM          cost {total:,.2f} in the unit of" in describe(more)
    assert "  LLM          no price is configured for n\n" in describe(more)
    none = {**one, "prices": {"other": [1, 1]}}
    told = describe(load(put(smoke(), "autointerp", {"annotator": "llm", "llm": none})))
    assert "  LLM          no price is configured for m\n" in told
    fuller = {**one, "fuzz": 52, "canaries": 3}
    asked = llm_calls(load(put(smoke(), "autointerp", {"annotator": "llm", "llm": fuller})))
    crosscoders, subjects = 4, calls["explain"].calls
    assert asked["classify"].calls == subjects + 3 * crosscoders
    assert asked["score"].calls == calls["score"].calls + 11 * subjects
    assert asked["explain"] == calls["explain"]


@pytest.mark.usefixtures("_empty")
def test_documents_are_labelled_once_by_each_annotator() -> None:
    two = {"a": {"model": "m"}, "b": {"model": "n"}}
    llm: Raw = {"base_url": "http://x/v1", "annotators": two, **CAP}

    def planned(**changes: object) -> dict[str, PlannedCalls]:
        whole = {"annotator": "llm", "llm": {**llm, **changes}}
        return llm_calls(load(put(smoke(), "autointerp", whole)))

    assert planned()["label"].calls == 2 * 2000
    assert planned(replicates=3, documents={"sample": 10})["label"].calls == 2 * 3 * 10
    assert "label" not in planned(documents={"sample": 0})
    one, more = (
        planned(documents={"sample": 100, "characters": n})["label"].tokens_in for n in (400, 4400)
    )
    assert more - one == 200 * 1000  # a token is four characters
    assert "LLM label    4,000 calls" in describe(
        load(put(smoke(), "autointerp", {"annotator": "llm", "llm": llm}))
    )
    for n, path in enumerate(Paths(load(smoke())).documents):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"split": ["score", "fit", "score"][n:]}).to_parquet(path)
    assert planned()["label"].calls == 2 * 3


@pytest.mark.usefixtures("_empty")
def test_latents_that_are_known_are_counted_and_others_are_at_most_the_dictionary() -> None:
    llm = {"base_url": "http://x/v1", "annotators": {"a": {"model": "m"}}} | CAP
    settings = load(put(smoke(), "autointerp", {"annotator": "llm", "llm": llm}))
    size = settings.fits["pt_it"].dictionary_size
    assert annotated(settings, UNIQUE) == [20 + UNIQUE] * 4
    assert annotated(settings, math.inf) == [size] * 4
    assert f"for {4 * (20 + UNIQUE)} latents: how many are unique" in describe(settings)
    for name, seed in (("pt_it", 0), ("pt_simpo", 0), ("it_simpo", 0), ("it_simpo", 1)):
        folder = Path("results/smoke/latents", name, f"seed{seed}")
        folder.mkdir(parents=True)
        pd.DataFrame({"latent": [3, 3, 5, 9]}).to_parquet(folder / "examples.parquet")
    assert annotated(settings, UNIQUE) == annotated(settings, math.inf) == [3] * 4
    assert "  LLM          for 12 latents\n" in describe(settings)


@pytest.mark.usefixtures("_empty")
def test_an_endpoint_is_looked_at_only_where_calls_are_due(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    llm = {"base_url": "http://127.0.0.1:9/v1", "annotators": {"a": {"model": "m"}}}
    settings = load(put(smoke(), "autointerp", {"annotator": "llm", "llm": llm}))
    refuse_early(settings, calls=False)
    assert "nothing answers" not in capsys.readouterr().err
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        refuse_early(settings)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    refuse_early(settings)
    err = capsys.readouterr().err
    assert "nothing answers at 127.0.0.1:9" in err
    assert "one annotator answers once" in err
    two = {**llm, "annotators": {"a": {"model": "m"}, "b": {"model": "n"}}}
    refuse_early(load(put(smoke(), "autointerp", {"annotator": "llm", "llm": two})))
    assert "one annotator" not in capsys.readouterr().err


@pytest.mark.usefixtures("_empty")
def test_what_less_would_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the text is half the dumps and forward passes; half the dictionary half the fits."""
    monkeypatch.setattr("workflow_scripts.run.plan_run.shutil.which", lambda _: None)
    config = load(put(smoke(), "activations", {"flop_per_second": 1e6}))
    told = dict(re.findall(r"with half of (\S+): (.*) less", describe(config)))
    assert list(told) == ["text.tokens", "fits.*.dictionary_size", "fits.*.tokens"]
    hours = {
        name: float(re.findall(r"([\d,]+) h of a GPU", line)[0]) for name, line in told.items()
    }
    assert hours["text.tokens"] == pytest.approx(forward_flop(config) / 2 / 3.6e9, abs=1)
    assert hours["fits.*.tokens"] == pytest.approx(fit_flop(config) / 2 / 3.6e9, abs=1)
    assert hours["fits.*.dictionary_size"] == hours["fits.*.tokens"]
    assert "MB and" in told["text.tokens"]
    assert " and " not in told["fits.*.tokens"]


@pytest.mark.usefixtures("_empty")
def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(smoke())
    needed = sum(part.missing for part in parts(config))
    monkeypatch.setattr(plan_run, "free_bytes", lambda: needed - 1)
    assert "IT DOES NOT FIT" in describe(config)
    with pytest.raises(UserError, match=r"lower text\.tokens, dump fewer layers"):
        check_disk(config)
    check_disk(config, set())  # no dump is to be made
    monkeypatch.setattr(plan_run, "free_bytes", lambda: needed)
    check_disk(config)
    assert "it fits" in describe(config)


@pytest.mark.workflow
def test_sizes_are_those_of_a_run(smoke_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(smoke_run.folder)
    config = load(smoke())
    written = {path: path.stat().st_size for path in dumps(config)}
    part = stage(config, "activations")
    assert part.missing == 0
    assert part.files == len(written)
    assert part.bytes == pytest.approx(sum(written.values()), rel=0.15)
    assert stage(config, "dataset").missing == stage(config, "crosscoder").missing == 0
    found = list(Path("results/smoke/crosscoder").glob("*/seed*/crosscoder.safetensors"))
    assert stage(config, "crosscoder").files == len(found)
    total = sum(path.stat().st_size for path in found)
    assert stage(config, "crosscoder").bytes == pytest.approx(total, rel=0.15)
    text = sorted(Path("results/store").glob("*/documents/*.parquet"))
    text += sorted(Path("results/store").glob("*/tokens/*.h5"))
    size = sum(path.stat().st_size for path in text)
    assert size / 2 < stage(config, "dataset").bytes < 2 * size


@pytest.mark.workflow
def test_plan_is_printed_and_leaves_nothing(tmp_path: Path) -> None:
    tree = running.copy_tree(tmp_path)
    raw = put(smoke(), "models.other", {"hub": "owner/model-9b", "revision": "main"})
    (tree / "big.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    printed = running.snakemake(tree, "plan", "--configfile", "big.yaml")
    assert "plan of the run smoke\n" in printed
    assert "models           1 files     18 GB" in printed
    left = [path.name for path in (tree / "results").rglob("*") if path.is_file()]
    assert left == ["plan.log"]


def test_a_control_does_not_answer_and_the_config_says_what_comes_first(tmp_path: Path) -> None:
    """The control is the first direct comparison, of the first name; seeds stand as written."""
    folder = running.copy_tree(tmp_path / "tree")
    raw = smoke()
    fits = raw["fits"]
    assert isinstance(fits, dict)
    fits = {"a_noise": {"models": ["pt", "it"], "layer": 1, "control": "noise"}, **fits}
    fits["it_simpo"] = {**fits["it_simpo"], "seeds": [5, 0]}
    raw = put(put(raw, "fits", fits), "comparisons", None)
    (folder / "own.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    out = running.snakemake(folder, "-n", "-p", "--configfile", "own.yaml")
    assert re.search(r"score_recovery .*--primary=(?!a_noise)", out)
    compare = next(line for line in out.splitlines() if "comparison.compare_categories" in line)
    assert compare.index('"5": ') < compare.index('"0": ', compare.index('"5": '))
    compared = compare.partition("--comparisons=")[2]
    assert compared.index('"a_noise": ') < compared.index('"it_simpo": ')
