"""The response cache: what a key depends on, damage, races, full disks, and durability."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from workflow_scripts.autointerp.llm.cache import (
    Entry,
    ResponseCache,
    cache_key,
    canonical,
    encode_entry,
    encode_failure,
    normalise_url,
)
from workflow_scripts.autointerp.llm.dialect import Dialect, load_dialect, store_dialect
from workflow_scripts.autointerp.llm.write_once import Syncer
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


def _give_up(cache: ResponseCache, reason: str) -> str:
    async def give_up() -> str:
        async with Syncer() as syncer:
            return await cache.put_failure(entry().key, reason, syncer)

    return asyncio.run(give_up())


def test_a_failure_is_kept_and_is_no_answer(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    assert cache.failure(entry().key) is None
    assert _give_up(cache, "HTTP 500") == "HTTP 500"
    assert _give_up(cache, "HTTP 502") == "HTTP 500"  # what a replay of either run will say
    assert cache.failure(entry().key) == "HTTP 500"
    assert cache.get(entry().key) is None
    assert list(cache.keys()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"key":',
        encode_failure("0" * 64, "of another key"),
        encode_failure(entry().key, ""),
        encode_failure(entry().key, "two\nlines"),
        encode_failure(entry().key, "x" * 5000),
        canonical({"key": entry().key, "reason": 1}),
        canonical({"key": entry().key, "more": 1, "reason": "x"}),
        b"[" * 4000,
    ],
)
def test_a_damaged_failure_counts_as_absent_and_is_written_anew(
    tmp_path: Path, content: bytes
) -> None:
    cache = ResponseCache(tmp_path)
    path = cache.failure_path(entry().key)
    path.parent.mkdir()
    path.write_bytes(content)
    assert _give_up(cache, "HTTP 500") == "HTTP 500"
    assert cache.quarantined == 1
    assert cache.failure(entry().key) == "HTTP 500"


@pytest.mark.parametrize(
    "change",
    [{"form": "yaml"}, {"form": ["none"]}, {"limit": "max"}, {"seed": 1}, {"more": True}],
)
def test_a_dialect_of_unknown_values_counts_as_absent(
    tmp_path: Path, change: dict[str, object]
) -> None:
    cache, key = ResponseCache(tmp_path), "a" * 64
    assert store_dialect(cache, key, Dialect()) == load_dialect(cache, key) == Dialect()
    path = tmp_path / "dialects" / f"{key}.json"
    path.write_bytes(canonical({**vars(Dialect()), **change}))
    assert load_dialect(cache, key) is None
    assert not path.exists()
    assert store_dialect(cache, key, Dialect(form="none")) == Dialect(form="none")


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
