"""Files that are written whole, and are on the disk before they get their name.

A draft is written in the same folder, synced, and linked to its name: the first writer wins.
`write_once` does all three; in an event loop a `Syncer` does, whose threads wait for the disk.
`write_over` replaces what is there.
"""

from __future__ import annotations

import asyncio
import os
import queue
import secrets
import threading
from contextlib import suppress
from pathlib import Path

from workflow_scripts.common.cli import UserError

PRIVATE = 0o600
"""What was paid for is for this user's eyes."""


class UnpublishedFile:
    """A file with all of its content, open, and not yet in its place.

    Raises
    ------
    UserError
        Here and in every method, if the folder cannot be written; nothing of the draft is left.
    """

    def __init__(self, path: str | Path, content: bytes) -> None:
        self._path = str(path)
        folder, name = os.path.split(self._path)
        self._folder = folder or "."
        self._temporary = f"{self._folder}/.{name}.{secrets.token_hex(8)}.part"
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
            return os.open(self._temporary, flags, PRIVATE)
        except FileNotFoundError:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            return os.open(self._temporary, flags, PRIVATE)

    def sync(self) -> None:
        """Wait until the content is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from None

    def publish(self, *, over: bool = False) -> bool:
        """Put the file into its place, if need be ``over`` another; return whether it is there."""
        try:
            if over:
                os.replace(self._temporary, self._path)  # noqa: PTH105  (as below)
            else:
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
            f"the response cache cannot be written at {self._folder} ({error.strerror}): make "
            "room or set autointerp.llm.cache to a writable folder; what was stored is kept"
        )

    def _discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        with suppress(OSError):
            os.remove(self._temporary)  # noqa: PTH107  (pathlib takes longer than the call)


def write_once(path: str | Path, content: bytes) -> bool:
    """Write a file to the disk unless it exists; return whether this call wrote it.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    draft = UnpublishedFile(path, content)
    draft.sync()
    return draft.publish()


def write_over(path: str | Path, content: bytes) -> None:
    """Write a file to the disk in place of the one that may be there.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    draft = UnpublishedFile(path, content)
    draft.sync()
    draft.publish(over=True)


class Syncer:
    """`write_once` for one event loop. Use as an asynchronous context manager.

    Leaving it waits until all that was handed over is in its place.
    """

    THREADS, BACKLOG = 4, 8
    """Slow disks sync side by side: from so many waiting drafts on there is another thread. Where
    one is enough, more would only take the interpreter's lock in turns."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[UnpublishedFile, asyncio.Future[bool]] | None]
        self._queue = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._synced: list[tuple[UnpublishedFile, asyncio.Future[bool], Exception | None]] = []

    async def __aenter__(self) -> Syncer:
        return self

    async def __aexit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        await asyncio.sleep(0)  # what the threads have left to the loop

    async def write_once(self, path: str | Path, content: bytes) -> bool:
        """Write a file to the disk unless it exists; return whether this call wrote it.

        A cancelled call's file is written all the same: the content may have been paid for.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        written: asyncio.Future[bool] = self._loop.create_future()
        self._queue.put((UnpublishedFile(path, content), written))
        if not self._threads or self._queue.qsize() > self.BACKLOG:
            self._start()
        return await written

    def _start(self) -> None:
        if len(self._threads) < self.THREADS:
            self._threads.append(threading.Thread(target=self._work))
            self._threads[-1].start()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            draft, written = item
            failure = None
            try:
                draft.sync()
            except Exception as error:  # whoever waits for it must get it
                failure = error
            with self._lock:
                first = not self._synced
                self._synced.append((draft, written, failure))
            if first:  # else the loop knows and has not come yet
                self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        """Publish what is synced, in the loop: there it takes less time than in a thread."""
        with self._lock:
            ready, self._synced = self._synced, []
        for draft, written, failure in ready:
            _publish(draft, written, failure)


def _publish(
    draft: UnpublishedFile, written: asyncio.Future[bool], failure: Exception | None
) -> None:
    won = False
    try:
        won = failure is None and draft.publish()
    except UserError as error:
        failure = error
    if written.done():  # cancelled meanwhile
        return
    if failure is None:
        written.set_result(won)
    else:
        written.set_exception(failure)
