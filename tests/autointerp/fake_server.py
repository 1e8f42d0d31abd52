"""A real HTTP server in the manner of the OpenAI API, with an oracle and every fault we know.

In a test: ``with FakeServer(...) as server: ... server.url``. As a process of its own:
``python -m tests.autointerp.fake_server --port-file FILE``; it prints nothing and shows its
counters at ``/counters``. It answers from the data block of our own prompts; a prompt that it does
not know is refused with 400, so that a change of the prompts cannot pass unseen.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.autointerp.fake_reply import chat_completion, count_tokens, prompt_tokens
from tests.autointerp.oracle import Behaviour, asked_for, content, rejected, rejection
from workflow_scripts.common.provenance import ROOT

HTTP_FAULTS = {
    "401": (401, "invalid_api_key"),
    "403": (403, "forbidden"),
    "404": (404, "model_not_found"),
    "400_other": (400, "context_length_exceeded"),
    "500": (500, "server_error"),
    "502": (502, "bad_gateway"),
    "503": (503, "overloaded"),
    "429": (429, "rate_limit_exceeded"),
    "quota": (429, "insufficient_quota"),
    "filter400": (400, "content_filter"),
    "too_long": (400, "maximum context length exceeded"),
}


@dataclass
class Counters:
    """What the server has seen."""

    calls: int = 0
    probes: int = 0
    answered: int = 0
    refused: int = 0
    unauthorised: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    redirected: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    body_hashes: set[str] = field(default_factory=set)
    key_hashes: set[str] = field(default_factory=set)
    headers: dict[str, str] = field(default_factory=dict)
    """Of the last call, in lower case; without the key."""
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def public(self) -> dict[str, Any]:
        """Return the plain numbers."""
        return {k: v for k, v in vars(self).items() if isinstance(v, int)} | {
            "distinct": len(self.keys)
        }


class FakeServer(ThreadingHTTPServer):
    """Serves on a free port of the loopback."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behaviour: Behaviour | None = None, *, keep_bodies: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour or Behaviour()
        self.counters = Counters()
        self.keep_bodies = keep_bodies
        self.lock = threading.Lock()
        self.moments: list[float] = []
        self.started = 0.0
        self.slots = threading.BoundedSemaphore(self.behaviour.slots)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Base URL for the client."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: a client that goes away in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet
    server: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        if self.path == "/counters":
            self._json(200, self.server.counters.public())
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})
        else:
            self._json(404, {"error": {"message": "no such path", "code": "not_found"}})

    def do_POST(self) -> None:
        server, counters = self.server, self.server.counters
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/elsewhere"):
            with server.lock:
                counters.redirected += 1
            self._json(200, {})
            return
        authorisation = self.headers.get("Authorization", "")
        body = json.loads(raw)
        with server.lock:
            counters.in_flight += 1
            counters.most_in_flight = max(counters.most_in_flight, counters.in_flight)
            if not authorisation.startswith("Bearer "):
                counters.unauthorised += 1
            counters.key_hashes.add(hashlib.sha256(authorisation.encode()).hexdigest())
            counters.body_hashes.add(hashlib.sha256(raw).hexdigest())
            counters.headers = {name.lower(): value for name, value in self.headers.items()}
            del counters.headers["authorization"]
        try:
            self._answer(body, hashlib.sha256(raw).hexdigest())
        finally:
            with server.lock:
                counters.in_flight -= 1

    def _answer(self, body: dict[str, Any], key: str) -> None:
        server, behaviour = self.server, self.server.behaviour
        complaint = rejected(body, behaviour.reject)
        probe = asked_for(body) == "probe"
        with server.lock:
            fault = self._count(body, key, probe, refused=complaint is not None)
        if complaint is not None:
            status, value = rejection(complaint, behaviour.manner)
            self._json(status, value)
            return
        if self._loading():
            self._error(503, "Loading model", "unavailable_error")
            return
        delay = behaviour.latency + behaviour.jitter * random.random()
        if delay:
            with server.slots:
                time.sleep(delay)
        if self._transport_fault(fault):
            return
        try:
            said = content(body, behaviour, fault)
        except (ValueError, KeyError, TypeError) as error:
            self._error(400, f"unknown prompt: {error!r}", "unknown_prompt")
            return
        self._complete(body, said, fault)

    def _loading(self) -> bool:
        """Whether the model is still being loaded: for some seconds after the first call."""
        server = self.server
        with server.lock:
            server.started = server.started or time.monotonic()
        return time.monotonic() < server.started + server.behaviour.loading

    def _count(self, body: dict[str, Any], key: str, probe: bool, *, refused: bool) -> str:
        """Count a call and return its fault; the lock is held."""
        server, counters = self.server, self.server.counters
        behaviour = server.behaviour
        if probe:
            counters.probes += 1
            return behaviour.probe_fault or "ok"
        counters.calls += 1
        if refused:
            counters.refused += 1
        if server.keep_bodies:
            counters.bodies.append(body)
        counters.keys[key] += 1
        if behaviour.rps:
            now = time.monotonic()
            server.moments = [t for t in server.moments if now - t < 1.0]
            if len(server.moments) >= behaviour.rps:
                counters.refused += 1
                return "429:250"
            server.moments.append(now)
        if behaviour.from_call and counters.calls >= behaviour.from_call[0]:
            return behaviour.from_call[1]
        if counters.calls in behaviour.first:
            return behaviour.first[counters.calls]
        step = min(counters.keys[key], len(behaviour.script)) - 1
        return behaviour.script[step]

    def _transport_fault(self, fault: str) -> bool:
        """Serve a fault of transport; return False if there is none."""
        name, _, value = fault.partition(":")
        if self._refusal(name, value):
            return True
        if name == "html200":
            self._send(200, b"<html>a portal</html>", "text/html")
        elif name == "error200":
            self._json(200, {"error": {"message": "upstream failed", "code": 502}})
        elif name == "raw":
            bodies = self.server.behaviour.raw
            self._send(200, bodies[self.server.counters.calls % len(bodies)], "application/json")
        elif name == "redirect":
            self._send(307, b"", "text/plain", {"Location": "/elsewhere/v1/chat/completions"})
        elif name == "trunc":
            self._send(200, b'{"id": "x", "choices": [{"mess', "application/json")
        elif name == "short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id"')
            self.close_connection = True
        elif name == "rst":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
        elif name == "hang":
            time.sleep(float(value or 3))
            self.close_connection = True
        elif name == "drip":
            self._drip(float(value or 3))
        else:
            return False
        return True

    def _refusal(self, name: str, value: str) -> bool:
        """Serve an error with a message; return False if the fault is none."""
        if name == "429" and value:
            extra = {"retry-after-ms": value}
            self._error(429, "slow down", "rate_limit_exceeded", extra)
        elif name in HTTP_FAULTS:
            status, code = HTTP_FAULTS[name]
            self._error(status, f"fault {name}: {code.replace('_', ' ')}", code)
        elif name == "retry_after":
            self._error(429, "wait", "rate_limit_exceeded", {"retry-after": value})
        elif name == "echo_key":
            self._echo_key(value)
        else:
            return False
        return True

    def _echo_key(self, how: str) -> None:
        """Refuse, and quote the key in the message."""
        status = {"401": 401, "200": 200}.get(how, 400)
        code = "content_filter" if how == "filter" else "invalid_request_error"
        given = self.headers.get("Authorization", "")
        bare = given.removeprefix("Bearer ")
        self._error(status, f"not with {given!r}, that is {bare}", code)

    def _drip(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass
        self.close_connection = True

    def _complete(self, body: dict[str, Any], said: str, fault: str) -> None:
        behaviour = self.server.behaviour
        prompt = prompt_tokens(body, behaviour.context)
        reply = chat_completion(body, said, fault, behaviour.model, prompt)
        output = count_tokens(said)
        with self.server.lock:
            self.server.counters.answered += 1
            self.server.counters.prompt_tokens += prompt
            self.server.counters.completion_tokens += output
        self._json(200, reply)

    def _error(
        self, status: int, message: str, code: str, headers: dict[str, str] | None = None
    ) -> None:
        value = {"error": {"message": message, "code": code, "type": code, "param": None}}
        self._send(status, json.dumps(value).encode(), "application/json", headers)

    def _json(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(
        self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serving(folder: Path, **behaviour: object) -> Iterator[str]:
    """Serve from a process of its own; yield the base URL."""
    port = folder / "port"
    command = [sys.executable, "-m", "tests.autointerp.fake_server", "--port-file", str(port)]
    process = subprocess.Popen([*command, "--behaviour", json.dumps(behaviour)], cwd=ROOT)
    try:
        end = time.monotonic() + 20
        while not port.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the fake server does not start")
            time.sleep(0.02)
        yield port.read_text()
    finally:
        process.kill()
        process.wait()
        port.unlink(missing_ok=True)


def counters(url: str) -> dict[str, int]:
    """Return the counters of a server in another process."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/counters") as reply:
        numbers: dict[str, int] = json.loads(reply.read())
    return numbers


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="the URL is written here")
    parser.add_argument("--behaviour", default="{}", help="JSON of the fields of Behaviour")
    arguments = parser.parse_args(argv)
    fields = json.loads(arguments.behaviour)
    if "first" in fields:
        fields["first"] = {int(n): fault for n, fault in fields["first"].items()}
    server = FakeServer(Behaviour(**fields), keep_bodies=False)
    temporary = arguments.port_file.with_suffix(".part")
    temporary.write_text(server.url)
    temporary.replace(arguments.port_file)
    server.serve_forever(0.05)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
