"""Data sets in the hub's layout, from folders; and what the hub refuses, from a server of ours."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pandas as pd
import pytest

from tests.dataset.conftest import chat, sample, write_jsonl
from tests.dataset.hub_folders import FILES, ROWS, write_hub
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json
from workflow_scripts.dataset.hub import check_access, stream
from workflow_scripts.dataset.settings import HubSource

Settings = dict[str, object]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache of ``datasets`` out of the home folder."""
    monkeypatch.setattr(
        "datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets"
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub(tmp_path_factory.mktemp("hub") / "data_set")


def source(hub: Path, **settings: object) -> Settings:
    return {"web": {"kind": "huggingface", "path": str(hub), **settings}}


def sampled(folder: Path, hub: Path, **settings: object) -> pd.DataFrame:
    return pd.read_parquet(sample(folder, source(hub, **settings), 200_000))


def test_columns_configurations_and_splits(hub: Path, tmp_path: Path) -> None:
    plain = sampled(tmp_path / "a", hub, text_column="text")
    assert len(plain) == FILES * ROWS
    assert set(plain["kind"]) == {"plain"}
    chats = sampled(tmp_path / "b", hub, messages_column="conversation")
    assert json.loads(chats["messages"][0])[1]["content"].startswith("answer ")
    assert len(sampled(tmp_path / "c", hub, name="sample")) == ROWS
    test = sampled(tmp_path / "d", hub, split="test")
    assert set(test["text"]) == {
        f"plain document number {n} with words" for n in range(FILES * ROWS, FILES * ROWS + 10)
    }


def test_order_is_of_the_seed(hub: Path, tmp_path: Path) -> None:
    first, again = (sampled(tmp_path / name, hub)["text"].tolist() for name in "ab")
    other = sampled(tmp_path / "c", hub, seed=5)["text"].tolist()
    assert first == again != other
    assert sorted(first) == sorted(other) != first


def test_only_what_is_needed_is_read(hub: Path) -> None:
    data = HubSource(kind="huggingface", path=str(hub))
    rows = list(stream(data, ["text"], [], 0))
    assert {tuple(row) for row in rows} == {("text",)}
    assert list(stream(data, ["text"], [], 70)) == rows[70:]


def test_json_lines_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_jsonl(tmp_path / "set" / "train.jsonl", ({"body": f"line {i}"} for i in range(60)))
    assert len(sampled(tmp_path / "out", tmp_path / "set", text_column="body")) == 60


def bad_rows(folder: Path, good: int, bad: int) -> Path:
    rows = [{"messages": chat(f"q {i}", "a")} for i in range(good)]
    rows += [{"messages": [{"role": "narrator", "content": f"{i}"}]} for i in range(bad)]
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", rows)
    return folder


def test_bad_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = bad_rows(tmp_path / "set", 60, 7)
    assert len(sampled(tmp_path / "out", folder, bad_rows="skip")) == 60
    facts = read_json(tmp_path / "out" / "manifest.json")
    assert facts["sources"]["web"]["bad_rows"] == {"unknown role": 7}
    with pytest.raises(UserError, match=r"7 of 67 rows hold no document.*has the role 'narrator'"):
        sampled(tmp_path / "many", folder)
    with pytest.raises(UserError, match=r"source web: row \d+ of .* has the role 'narrator'"):
        sampled(tmp_path / "none", bad_rows(tmp_path / "bad", 0, 9), bad_rows="skip")


def pickled(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        path.unlink()
    (folder / "README.md").unlink()
    (folder / "train.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def torn(folder: Path) -> None:
    path = folder / "data" / "train-00000-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:100])


def nothing(folder: Path) -> None:
    """Leave the folder as it is."""


def of_another_format(folder: Path) -> None:
    pickled(folder)
    (folder / "train.pkl").unlink()
    (folder / "train.xml").write_text("<a><b>text</b></a>")


REFUSED: dict[str, tuple[Callable[[Path], None], Settings, str]] = {
    "configuration": (nothing, {"name": "large"}, "'large' not found.*check its files, name"),
    "split": (nothing, {"split": "dev"}, "Bad split: dev.*check its files, name and split"),
    "column": (nothing, {"text_column": "body"}, r"no column 'body' \(it has id, text, conv"),
    "pickle": (pickled, {}, r"cannot be read \(No \(supported\) data files found"),
    "format": (of_another_format, {}, "is of the format xml: only parquet, json, csv"),
    "torn": (torn, {}, "the data set .* cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_read_is_told(case: str, tmp_path: Path) -> None:
    harm, settings, told = REFUSED[case]
    folder = write_hub(tmp_path / "set")
    harm(folder)
    with pytest.raises(UserError, match=told) as caught:
        sampled(tmp_path / "out", folder, **settings)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_hub_id_needs_a_commit(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"web\.huggingface: has no revision: give the commit of a/b"
    ):
        sampled(tmp_path, Path("a/b"))


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers like the hub: a gated data set, an open one, and nothing else."""

    def do_GET(self) -> None:
        if self.path == "/api/datasets/owner/open/auth-check":
            self.send_response(200)
        elif self.path == "/api/datasets/owner/gated/auth-check":
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub of ours, on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{serving.server_port}"
        )
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield
        serving.shutdown()


@pytest.mark.usefixtures("server")
def test_a_gated_set_names_licence_page_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    check_access("owner/open")
    told = (
        "the data set owner/gated is gated: accept its licence at "
        "https://huggingface.co/datasets/owner/gated and give a token of that account in HF_TOKEN"
    )
    with pytest.raises(UserError) as caught:
        check_access("owner/gated")
    assert str(caught.value).startswith(told)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(UserError, match=r"\(the one that is set has no access\)$") as caught:
        check_access("owner/gated")
    assert "hf_secret" not in str(caught.value)
    with pytest.raises(UserError, match="owner/none does not exist, or is private"):
        check_access("owner/none")


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"owner/any cannot be fetched \(.*check the network"):
        check_access("owner/any")
