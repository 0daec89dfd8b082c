"""Reads and parses the log before it is asked for: most of parsing is done without Python's lock, so threads pay."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from eventcsv.table.frames import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.log.scan import Chunk
    from eventcsv.table.frames import Parsed

_THREADS: Final = 2


class Ahead:
    """The chunks of a log, parsed, to be gone through once.

    The first one is read at once, and a thread parses it while the caller does something else. All reading is done by
    the caller's thread, so that the order of the steps that touch a file is always the same.

    Args:
        chunks: What `Log.read` returned.

    Raises:
        UnsupportedFormat: A newer eventcsv made what comes first.
        OSError: The disk said no.
    """

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        first = next(chunks, None)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._coming = deque([] if first is None else [self._pool.submit(parsed, first)])

    def __iter__(self) -> Iterator[Parsed]:
        with self._pool:
            for chunk in self._chunks:
                self._coming.append(self._pool.submit(parsed, chunk))
                if len(self._coming) > _THREADS:
                    yield self._coming.popleft().result()
            while self._coming:
                yield self._coming.popleft().result()

    def close(self) -> None:
        """Leave the rest unread."""
        self._pool.shutdown(cancel_futures=True)
        self._chunks = iter(())
