"""What is to be asked before the first run over a list: whether its STATUS is the job's to write, and to go by."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import orjson

from eventcsv.event import BLANKS, DONE, Status
from eventcsv.view.progress import work_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from eventcsv.log.interface import Log
    from eventcsv.table.table import Table

_OURS: Final = frozenset({"", *(status.value for status in Status)}) - frozenset(DONE)


def has_results(log: Log, status_column: str) -> bool:
    """Tell whether a log has a result that sets this column: from then on it is known what it means."""
    if not log.exists():
        return False
    result = re.compile(rb'"kind":"result"[^\n]*[{,]' + re.escape(orjson.dumps(status_column)) + b":")
    return any(result.search(chunk.raw) for chunk in log.read(log.first(), log.end().position))


def doubtful_statuses(table: Table, done: Collection[str]) -> dict[str, int]:
    """Return the words in STATUS that are none of ours, or say that a PO is done, with how many POs have them.

    Args:
        table: A list in whose STATUS no result is yet.
        done: The STATUS words that count as done; whoever names one that is not the usual one knows what it means.
    """
    known = _OURS | ({_word(text) for text in done} - set(DONE))
    counts = Counter(work_of(table, done).get_column("status").to_list())
    return {text: count for text, count in counts.most_common() if _word(text) not in known}


def _word(text: str) -> str:
    """Return a STATUS as it would be one of ours, however it is spelled."""
    return text.strip(BLANKS).upper().replace(" ", "_").replace("-", "_")
