"""Revisions are looked up on a hub (a local server here) and written without touching the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from workflow_scripts.common.provenance import ROOT
from workflow_scripts.tools.pin_revisions import pins

COMMITS = {
    "/api/models/owner/model/revision/main": "a" * 40,
    "/api/datasets/owner/text/revision/v1": "b" * 40,
    f"/api/models/owner/pinned/revision/{'c' * 40}": "c" * 40,
}
CONFIG = f"""\
# a comment: main
models:
  pt: {{hub: owner/model, revision: main}}  # kept
  it: {{hub: owner/pinned, revision: {"c" * 40}}}
  own: path/to/model
text:
  sources:
    hub:
      kind: huggingface
      path: owner/text
      revision: "v1"
    file: {{kind: jsonl, path: a.jsonl}}
"""


class Hub(BaseHTTPRequestHandler):
    """Tells commits as the hub's API does."""

    def do_GET(self) -> None:
        commit = COMMITS.get(self.path.split("?")[0])
        name = "/".join(self.path.split("/")[3:5])
        body = json.dumps({"id": name, "sha": commit} if commit else {"error": "not found"})
        self.send_response(200 if commit else 404)
        self.send_header("Content-Type", "application/json")
        if not commit:
            self.send_header("X-Error-Code", "RevisionNotFound")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of a local hub."""
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def pin(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command against the hub at ``address``."""
    settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "workflow_scripts.tools.pin_revisions", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_moving_revisions_become_commits_and_nothing_else_changes(hub: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    done = pin(hub, str(config))
    assert done.returncode == 0, done.stderr
    assert "2 of 3 revisions written" in done.stdout
    wanted = CONFIG.replace("revision: main", f"revision: {'a' * 40}").replace('"v1"', "b" * 40)
    assert config.read_text() == wanted
    again = pin("http://127.0.0.1:9", str(config))  # commits are not looked up
    assert again.returncode == 0
    assert "0 of 3" in again.stdout


def test_check_looks_up_commits_too(hub: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    assert pin(hub, "--check", str(config)).returncode == 0
    assert config.read_text() == CONFIG
    config.write_text(CONFIG.replace("c" * 40, "d" * 40))
    done = pin(hub, "--check", str(config))
    assert done.returncode == 2
    assert f"owner/pinned at {'d' * 40}" in done.stderr
    assert "Traceback" not in done.stderr


def test_unreachable_hub_is_told_in_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    done = pin("http://127.0.0.1:9", str(config))
    assert done.returncode == 2
    assert done.stderr.startswith("error: the hub gives no commit of owner/model")
    assert config.read_text() == CONFIG


@pytest.mark.parametrize("name", ["paper", "minder"])
def test_shipped_configs_are_pinned(name: str) -> None:
    found = pins((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert len(found) >= 4
    assert all(len(pin.revision) == 40 for pin in found)
