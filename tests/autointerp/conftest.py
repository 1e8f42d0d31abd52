"""No test of this stage may leave the machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.autointerp.llm_run import KEY_ENV, make_contexts

SENTINEL = "sk-sentinel-4f9a77d1c02e"


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert str(address[0]) in ("127.0.0.1", "::1"), f"a test connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv(KEY_ENV, SENTINEL)


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the contexts of four planted latents."""
    folder = tmp_path_factory.mktemp("contexts")
    make_contexts(folder)
    return folder
