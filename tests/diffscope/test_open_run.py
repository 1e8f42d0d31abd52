"""A finished run, opened: what it tells, its latents, and what fires on a text of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import diffscope
from tests.docs.pages import blocks
from tests.workflow.running import Run
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import files
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.crosscoder.codes import encode
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.tools import fire

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def opened(smoke_run: Run) -> diffscope.Run:
    return diffscope.open_run(smoke_run.folder / "results/smoke")


@pytest.fixture(scope="module")
def fit(opened: diffscope.Run) -> diffscope.Fit:
    return opened.fit("it_simpo")


def test_a_run_tells_what_changed(opened: diffscope.Run) -> None:
    facts = files.read_json(opened.folder / "comparison/answer.json")
    assert opened.answer[0] == facts["sentence"]
    changes = opened.changes()
    called = changes.groupby("verdict")["label"].apply(sorted).to_dict()
    assert called == {verdict: names for verdict, names in facts["verdicts"].items() if names}
    assert len(opened.changes(every=True)) > len(changes)


def test_a_fit_has_its_latents(opened: diffscope.Run, fit: diffscope.Fit) -> None:
    assert set(opened.fits) == {"it_simpo", "pt_it", "pt_simpo"}
    assert (fit.models, fit.layer, fit.seed) == (("it", "simpo"), 1, 0)
    assert opened.fit("it_simpo", seed=1).latents()["latent"].tolist() != []
    latents = fit.latents()
    named = pd.read_parquet(fit.files.explanations[0])
    answered = named[named["status"] == "ok"].set_index("latent")["explanation"]
    shown = latents[latents["named_by"] != ""].set_index("latent")["explanation"]
    assert shown.to_dict() == answered.reindex(shown.index).to_dict()
    assert len(shown) > 0
    assert len(latents) == len(pd.read_parquet(fit.files.selection))


def test_a_latent_has_contexts(fit: diffscope.Fit) -> None:
    examples = pd.read_parquet(str(fit.files.examples))
    own = examples[(examples["kind"] == "positive")]
    table = fit.latents()
    named = table.loc[table["named_by"] == "lexical", "latent"]
    number = int(own.loc[own["latent"].isin(named), "latent"].iloc[0])
    latent = fit.latent(number)
    strongest = [max(context.activations) for context in latent.contexts]
    expected = own.loc[own["latent"] == number, "max_activation"].sort_values(ascending=False)
    np.testing.assert_allclose(strongest, expected, rtol=1e-6)
    assert latent.names["named_by"].tolist() == ["lexical"]
    assert "«" in str(latent)


def test_latents_that_nobody_named_are_shown_without_names(opened: diffscope.Run) -> None:
    config = opened.paths.config
    nobody = config.autointerp.model_copy(update={"annotator": "none"})
    paths = replace(opened.paths, config=config.model_copy(update={"autointerp": nobody}))
    fit = replace(opened, paths=paths).fit("it_simpo")
    assert set(fit.latents()["named_by"]) == {""}
    assert fit.latent(int(fit.latents()["latent"].iloc[0])).names.empty


def test_a_document_fires_as_in_the_run(opened: diffscope.Run, fit: diffscope.Fit) -> None:
    """Its latents are those that the run's dump gives, in the same places."""
    paths = opened.paths
    shard = TokenShard.read(paths.first_tokens)
    documents = pd.read_parquet(opened.folder / "dataset/documents/shard000.parquet")
    lengths = np.diff(shard.row_starts)
    whole = np.flatnonzero(lengths < paths.config.text.context_length)
    row = int(whole[np.argmax(lengths[whole])])
    document = documents.set_index("document").loc[int(shard.row_document[row])]
    plain = document["kind"] == "plain"
    messages = str(document["messages"])
    firing = fit.fire(str(document["text"]) if plain else json.loads(messages))
    assert len(firing.tokens) == lengths[row]

    def under(model: str) -> list[Path]:
        return sorted((opened.folder / f"activations/{model}/layer{fit.layer}").glob("shard*.h5"))

    normalizers = {model: Path(paths.normalizer(model, fit.layer)) for model in fit.models}
    store = ActivationStore({m: under(m) for m in fit.models}, fit.layer, normalizers)
    rows = np.r_[shard.row(row)]
    read = rows[store.usable.code[rows] != 255]
    assert [position for position, used in enumerate(firing.read) if used] == list(read - rows[0])
    codes = encode(fit.crosscoder(), torch.from_numpy(store.read(read)))
    expected = pd.DataFrame(
        {
            "position": (read - rows[0])[codes.active.rows.numpy()],
            "latent": codes.active.columns.numpy(),
            "value": codes.values.numpy(),
        }
    )
    both = firing.active.merge(expected, on=["position", "latent"], how="outer", indicator=True)
    assert len(both) > 20
    # Batches differ, and so does the last bit of bfloat16: a score at the threshold may fall.
    assert (both["_merge"] == "both").mean() > 0.95
    assert (both["activation"] / both["value"] - 1).abs().median() < 0.01
    assert firing.unique("it", 1)["position"].is_unique


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "the text is empty"),
        ("word " * 200, "rows of the run have at most 96: shorten it"),
        ("<start_of_turn>user", "it has a control token in its content"),
        ([{"role": "poet", "content": "x"}], "has the role 'poet'"),
        ([], "the chat is empty"),
    ],
)
def test_a_text_that_no_document_could_be_is_refused(
    fit: diffscope.Fit, text: str, message: str
) -> None:
    with pytest.raises(diffscope.UserError, match=message):
        fit.fire(text)


def test_what_is_not_there_is_told(opened: diffscope.Run, tmp_path: Path) -> None:
    with pytest.raises(diffscope.UserError, match="holds no finished run"):
        diffscope.open_run(tmp_path)
    with pytest.raises(diffscope.UserError, match="has no fit other: choose it_simpo or"):
        opened.fit("other")
    with pytest.raises(diffscope.UserError, match="has no seed 7: choose one of 0, 1"):
        opened.fit("it_simpo", 7)
    with pytest.raises(diffscope.UserError, match="latent 99999 of it_simpo is not live"):
        opened.fit("it_simpo").latent(99999)
    files.write_json(tmp_path / "provenance.json", {"settings": {"run": "old", "colour": 1}})
    with pytest.raises(diffscope.UserError, match="was made by another version of diffscope"):
        diffscope.open_run(tmp_path)


def test_the_page_on_sharing_is_right(
    opened: diffscope.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code = blocks(ROOT / "docs/share.md", "python")[0]
    exec(code.replace("results/quickstart", str(opened.folder)), {})
    assert opened.answer[0] in capsys.readouterr().out


def test_importing_leaves_the_backend_of_a_notebook_alone() -> None:
    """The workflow's figures choose one that draws to files."""
    code = "import sys, diffscope; print({'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert done.stdout == "set()\n"


def test_fire_prints_tokens_with_their_latents(
    opened: diffscope.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Please give me some advice.\x1b[31m"
    assert fire.main([str(opened.folder), "it_simpo", text, "--most", "2"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("it_simpo, seed 0, layer 1: it and simpo\n   0 '<bos>' (not read)\n")
    assert "\x1b" not in told
    assert "latents fire; shown: " in told.splitlines()[-1]
    assert fire.main([str(opened.folder), "it_simpo", "Hello there.", "--chat"]) == 0
    assert "'<start_of_turn>'" in capsys.readouterr().out
