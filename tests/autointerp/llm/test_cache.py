"""The response cache: what a key depends on, damage, races, full disks, and durability."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from workflow_scripts.autointerp.llm.cache import (
    Attempt,
    Entry,
    ResponseCache,
    cache_key,
    canonical,
    encode_attempts,
    encode_entry,
    normalise_url,
)
from workflow_scripts.autointerp.llm.dialect import Dialect, load_dialects, store_dialect
from workflow_scripts.autointerp.llm.dialect import form as dialect_form
from workflow_scripts.common.cli import UserError

URL = "https://api.example.org/v1"
BODY: dict[str, object] = {"model": "m", "messages": [], "temperature": 0.0, "seed": 1}


def entry(response: str = "text", body: dict[str, object] | None = None) -> Entry:
    content = canonical(body or BODY)
    return Entry(
        key=cache_key(URL, content, 0),
        base_url=URL,
        body=content,
        replicate=0,
        response=response,
        status=200,
        headers={},
        attempts=1,
        received="2026-01-01T00:00:00+00:00",
        seconds=0.1,
        sdk="openai",
    )


def test_every_field_of_the_body_the_address_and_the_replicate_make_the_key() -> None:
    keys = {
        cache_key(URL, canonical(BODY), 0),
        cache_key(URL, canonical(BODY), 1),
        cache_key("https://other.example.org/v1", canonical(BODY), 0),
        *(cache_key(URL, canonical({**BODY, name: "else"}), 0) for name in BODY),
        cache_key(URL, canonical({**BODY, "top_p": 1}), 0),
    }
    assert len(keys) == 4 + len(BODY)
    assert cache_key(URL, canonical(dict(reversed(list(BODY.items())))), 0) == cache_key(
        URL, canonical(BODY), 0
    )


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://user:pass@API.example.org:443/v1/?key=1#x", "https://api.example.org/v1"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("HTTP://[::1]:80/v1", "http://[::1]/v1"),
    ],
)
def test_addresses_are_normalised_and_lose_their_secrets(given: str, normal: str) -> None:
    assert normalise_url(given) == normal


@pytest.mark.parametrize("bad", ["", "api.example.org", "ftp://x/v1", "http://", "http://x:port/"])
def test_bad_addresses_are_refused(bad: str) -> None:
    with pytest.raises(UserError, match="base_url"):
        normalise_url(bad)


def test_round_trip_and_first_writer_wins(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    assert cache.get(entry().key) is None
    assert cache.put(entry("first")) == entry("first")
    assert cache.put(entry("second")) == entry("first")
    assert cache.get(entry().key) == entry("first")
    assert list(cache.keys()) == [entry().key]


@pytest.mark.parametrize("place", [0, 40, -3])
def test_one_flipped_byte_sends_an_entry_to_quarantine(tmp_path: Path, place: int) -> None:
    cache = ResponseCache(tmp_path)
    cache.put(entry())
    path = cache.path(entry().key)
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    assert cache.get(entry().key) is None
    assert cache.quarantined == 1
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
    assert cache.put(entry("anew")).response == "anew"


def test_torn_foreign_and_misplaced_entries_count_as_absent(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    whole = encode_entry(entry())
    other = entry(body={**BODY, "seed": 2})
    lying = encode_entry(replace(entry(), body=canonical({**BODY, "seed": 3})))
    for content in (b"", whole[:50], b"null", b"[]", encode_entry(other), lying):
        path = cache.path(entry().key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        assert cache.get(entry().key) is None
    assert cache.quarantined == 6


def test_two_writers_at_once_leave_one_entry_that_both_return(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    results: list[str] = []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        results.append(cache.put(entry(f"from {number}")).response)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1
    assert [p.name for p in cache.path(entry().key).parent.iterdir()] == [f"{entry().key}.json"]


def test_a_full_disk_is_told_and_leaves_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = ResponseCache(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        cache.put(entry())
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


CUT = Attempt((entry("cut off"),), None)
SILENT = Attempt((), "HTTP 500")


def test_vain_attempts_are_kept_in_order_and_are_no_answers(tmp_path: Path) -> None:
    cache, key = ResponseCache(tmp_path), entry().key
    assert cache.attempts(key) == []
    cache.add_attempt(key, CUT)
    cache.add_attempt(key, SILENT)
    assert cache.attempts(key) == [CUT, SILENT]
    assert cache.get(key) is None
    assert list(cache.keys()) == []


def test_what_was_paid_for_is_for_this_user_alone(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    cache.put(entry())
    cache.add_attempt(entry().key, CUT)
    store_dialect(cache, "a" * 64, Dialect())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"key":',
        encode_attempts("0" * 64, [SILENT]),
        encode_attempts(entry().key, [Attempt((), "")]),
        encode_attempts(entry().key, [Attempt((), "two\nlines")]),
        encode_attempts(entry().key, [CUT]).replace(b"cut off", b"whole!!"),
        canonical({"key": entry().key, "reason": "HTTP 500"}),
        b"[" * 4000,
    ],
)
def test_damaged_attempts_count_as_absent_and_are_written_anew(
    tmp_path: Path, content: bytes
) -> None:
    cache, key = ResponseCache(tmp_path), entry().key
    path = cache.failure_path(key)
    path.parent.mkdir()
    path.write_bytes(content)
    cache.add_attempt(key, CUT)
    assert cache.quarantined == 1
    assert cache.attempts(key) == [CUT]


@pytest.mark.parametrize(
    "change",
    [{"form": "yaml"}, {"form": ["none"]}, {"limit": "max"}, {"seed": 1}, {"more": True}],
)
def test_a_dialect_of_unknown_values_counts_as_absent(
    tmp_path: Path, change: dict[str, object]
) -> None:
    cache, key = ResponseCache(tmp_path), "a" * 64
    store_dialect(cache, key, Dialect())
    assert load_dialects(cache, key) == [Dialect()]
    path = tmp_path / "dialects" / f"{key}.json"
    path.write_bytes(canonical([{**vars(Dialect()), **change}]))
    assert load_dialects(cache, key) == []
    assert not path.exists()
    for form in ("none", "json_schema", "none"):
        store_dialect(cache, key, Dialect(form=dialect_form(form)))
    assert load_dialects(cache, key) == [Dialect(), Dialect(form="none")]


def test_a_folder_that_is_closed_to_this_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ResponseCache(tmp_path)
    key = entry().key
    assert cache.get(key) is None
    (tmp_path / key[:2]).mkdir()

    def closed(path: str, mode: int) -> bool:  # as root, every folder is open
        return mode == os.F_OK and not path.endswith(".json")

    monkeypatch.setattr(os, "access", closed)
    with pytest.raises(UserError, match=f"cannot be read at {tmp_path / key[:2]}"):
        ResponseCache(tmp_path).get(key)
