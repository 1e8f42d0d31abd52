"""Files that are written once, whole and durably; the first writer wins.

A draft is written beside its place, synced, and linked into it. `write_once` does all three; in an
event loop a `Syncer` does, whose thread waits for the disk. The rest takes less time than handing
it over would.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from workflow_scripts.cli import UserError

_COUNTER = itertools.count()


class Draft:
    """A file with all of its content, open, and not yet in its place.

    Raises
    ------
    UserError
        Here and in every method, if the folder cannot be written; nothing of the draft is left.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        folder, name = os.path.split(path)
        self._temporary = f"{folder}/.{name}.{os.getpid()}.{next(_COUNTER)}.part"
        self._file = -1
        try:
            self._file = self._create()
            view = memoryview(content)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise self._failed(error) from None

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return os.open(self._temporary, flags, 0o644)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._temporary, flags, 0o644)

    def sync(self) -> None:
        """Wait until the content is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from None

    def publish(self) -> bool:
        """Put the file into its place; return False if there is one already."""
        try:
            os.link(self._temporary, self._path)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._failed(error) from None
        finally:
            self._discard()
        return True

    def _failed(self, error: OSError) -> UserError:
        self._discard()
        return UserError(
            f"the response cache cannot be written at {self._path.parent} ({error.strerror}): make "
            "room or set autointerp.llm.cache to a writable folder; what was stored is kept"
        )

    def _discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        with suppress(OSError):
            Path(self._temporary).unlink()


def write_once(path: Path, content: bytes) -> bool:
    """Write a file durably unless it exists; return whether this call wrote it.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    draft = Draft(path, content)
    draft.sync()
    return draft.publish()


class Syncer:
    """`write_once` for one event loop. Use as a context manager inside the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Draft, asyncio.Future[None]] | None]
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Syncer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    async def write_once(self, path: Path, content: bytes) -> bool:
        """Write a file durably unless it exists; return whether this call wrote it.

        A cancelled call writes it too, and only then ends: the content may have been paid for.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        draft = Draft(path, content)
        synced = self._loop.create_future()
        self._queue.put((draft, synced))
        try:
            await synced
        except asyncio.CancelledError:
            draft.sync()
            draft.publish()
            raise
        return draft.publish()

    def _work(self) -> None:
        running = True
        while running:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            running = None not in batch
            ended = [(synced, _failure(draft)) for draft, synced in filter(None, batch)]
            self._loop.call_soon_threadsafe(_settle, ended)


def _failure(draft: Draft) -> UserError | None:
    try:
        draft.sync()
    except UserError as error:
        return error
    return None


def _settle(ended: Sequence[tuple[asyncio.Future[None], UserError | None]]) -> None:
    for synced, failure in ended:
        if synced.done():  # cancelled meanwhile
            continue
        if failure is None:
            synced.set_result(None)
        else:
            synced.set_exception(failure)
