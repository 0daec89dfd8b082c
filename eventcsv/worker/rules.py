"""What is recorded of a PO: the key, the cells and the line that come of whatever a caller has in hand. Pure.

A result that has happened is recorded. Refused is only what belongs to no row or to no column; everything else is
recorded in the best form that there is, and whoever gave it is told what was done.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from eventcsv.errors import InvalidEvent
from eventcsv.event import BLANKS, COLUMNS, DEFAULT_KEY, FAILED, LONGEST_CELL, Status, column_id
from eventcsv.log.line import MAX_LINE_BYTES
from eventcsv.worker.fitting import writable
from eventcsv.worker.values import Note, cut, moment_text, one_line, plain, short, text_of, whole_digits

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_MESSAGE: Final = "no message was given"

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNWRITABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # a line break is no rarity in a header
_MOST_DIGITS: Final = 18
_MOST: Final = 10**_MOST_DIGITS
_MOST_PAIRS: Final = 100_000
_SHOWN: Final = 200

_USUAL: Final = {name: (keyword, column) for keyword, column in COLUMNS.items() for name in (column, keyword)}
_KEYWORD_OF: Final = {column_id(name): keyword for keyword, column in COLUMNS.items() for name in (column, keyword)}
_COUNTS: Final = ("attachments_found", "attachments_downloaded")
_NAMES: Final = tuple(COLUMNS.values())
_SEPARATORS: Final = str.maketrans("", "", f"{BLANKS}_-")
_STATUSES: Final = frozenset(status.value for status in Status)
_RESPELLED: Final = {status.translate(_SEPARATORS).casefold(): status for status in _STATUSES}


Pairs = list[tuple[object, object]]


# --- the key -----------------------------------------------------------------------------------------------------


def key_of(key: object, *, key_column: str = DEFAULT_KEY, notes: list[Note] | None = None) -> str:
    """Return the text that names a row of the CSV.

    Args:
        key: The PO: text, or a number or anything else of which the text is the key.
        key_column: The column that identifies a row, for the notes.
        notes: Takes what was done to it.

    Raises:
        InvalidEvent: It is none, blank, or holds a control character.
    """
    if type(key) is str and key.isascii() and key.isprintable() and key.strip():  # as nearly all are
        return key
    notes = [] if notes is None else notes
    text = key if type(key) is str else _key_text(key, key_column, notes)
    if not text.isprintable() and _CONTROL.search(text):
        text = text.strip(BLANKS)  # the end of the line that it was read from belongs to no key
        if found := _CONTROL.search(text):
            raise InvalidEvent("key", f"holds the control character U+{ord(found[0]):04X} at position {found.start()}")
        notes.append(Note(key_column, "the line break or tab at its end was left out"))
    if not text.strip(BLANKS):
        raise InvalidEvent("key", "must not be empty")
    return text if text.isascii() else writable(text, key_column, notes)


def _key_text(key: object, key_column: str, notes: list[Note]) -> str:
    if issubclass(type(key), str):
        return str.__str__(key)  # as was just seen, without asking the key itself
    told: list[str] = []
    text = whole_digits(key) or text_of(key, told)
    if text is None:
        raise InvalidEvent("key", f"must not be missing, as {short(key)} is")
    notes.append(Note(key_column, f"{short(key)} ({type(key).__name__}) was taken for {short(text)}"))
    return text


# --- the cells ---------------------------------------------------------------------------------------------------


def is_usual(column: str) -> bool:
    """Tell whether a column is one of those that emit_result() has a keyword for."""
    return column_id(column) in _KEYWORD_OF


def usual_cells(values: tuple[object, ...]) -> dict[str, str] | None:
    """Return what `cells_of` makes of a result that is as nearly all are: nothing in it to spell, to mend or to tell.

    Args:
        values: A value for each of `COLUMNS`, none of which is the key column.

    Returns:
        The cells; None when it takes the care of `cells_of`, which knows every value.
    """
    status, supplier, found, downloaded, names, processed, message, folder, url = values
    if type(status) is Status:
        status = str.__str__(status)
    said = message if type(message) is str else ""
    if type(status) is not str or status not in _STATUSES or (status in FAILED and not said.strip()):
        return None
    if len(said) > LONGEST_CELL // 2:
        return None
    if type(found) is int and type(downloaded) is int and 0 <= downloaded <= found < _MOST:
        found, downloaded = str(found), str(downloaded)
    elif found is not None or downloaded is not None:
        return None
    if (type(names) is list or type(names) is tuple) and (joined := _joined(names)) and len(joined) < MAX_LINE_BYTES:
        names = joined
    cells: dict[str, str] = {}
    texts = (status, supplier, found, downloaded, names, processed, message, folder, url)
    for column, text in zip(_NAMES, texts, strict=True):
        if type(text) is str:
            cells[column] = text
        elif text is not None:
            return None
    return cells


def _joined(texts: Iterable[str]) -> str | None:
    try:
        return ";".join(texts)
    except TypeError:  # not of texts alone
        return None


def cells_of(
    values: Iterable[tuple[object, object]], *, key_column: str = DEFAULT_KEY, notes: list[Note]
) -> dict[str, str]:
    """Turn column values into the exact text of their cells.

    Args:
        values: Names of columns, each with a value of any type; see `values`.
        key_column: The column that identifies a row, which no event may set.
        notes: Takes what was done to values that could not be recorded as they were given.

    Returns:
        Column name to text, in the order given, without those that are missing.

    Raises:
        InvalidEvent: A column cannot be told from its name, is given twice or is the key column; or there is no status.
    """
    cells: dict[str, str] = {}
    known: dict[str, str] = {}
    for name, value in values:
        if value is None:
            continue
        usual = _USUAL.get(name) if type(name) is str else None  # as nearly all are spelled
        ident, column = usual or _column(name, key_column, notes)
        kind = type(value)
        text: str | None
        if kind is str and (ident != "status" or value in _STATUSES):
            text = value  # type: ignore[assignment]  # it is text, and as it is to be
        elif kind is int and -_MOST < value < _MOST:  # type: ignore[operator]  # it is a number
            text = str(value)
        else:
            text = _cell(ident, column, value, notes)
        if text is not None:
            if ident in known:
                raise InvalidEvent("columns", f"{column!r} is given twice, case and surrounding blanks aside")
            known[ident] = column
            cells[column] = text
    if key_column is not DEFAULT_KEY and known.get(_KEYWORD_OF.get(column_id(key_column), "")):
        raise _key_is_set(key_column)
    if not cells.get(known.get("status", "")):
        raise InvalidEvent("status", "is required: what came of the PO?")
    _mend(cells, known, notes)
    return cells


def column_ident(name: str) -> str:
    """Return what makes two names of a column the same, the keywords of emit_result() included."""
    ident = column_id(name)
    return _KEYWORD_OF.get(ident, ident)


def _column(name: object, key_column: str, notes: list[Note]) -> tuple[str, str]:
    """Return what tells a column from others, and its name."""
    if not issubclass(type(name), str):  # without asking a stand-in
        raise InvalidEvent("columns", f"a column name has to be text, not {short(name)}, a {type(name).__name__}")
    column = str.__str__(name)
    if not column.isprintable() and _UNWRITABLE.search(column):
        column = _UNWRITABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", column)
        notes.append(Note(column, "control characters in the name, which no header can hold, were written as escapes"))
    ident = column_id(column)
    if not ident:
        raise InvalidEvent("columns", "a column name must not be empty")
    if ident == column_id(key_column):
        raise _key_is_set(column)
    keyword = _KEYWORD_OF.get(ident)
    if keyword and column_id(COLUMNS[keyword]) != ident:  # attachment_names
        column = COLUMNS[keyword]
    return keyword or ident, column


def _key_is_set(column: str) -> InvalidEvent:
    return InvalidEvent(column, "is the key column; an event sets the other columns of a row, never its key")


def _cell(ident: str, column: str, value: object, notes: list[Note]) -> str | None:
    if type(value) is list and (joined := _joined(value)) is not None:
        return joined
    if type(value) is Status:
        return str.__str__(value)
    told: list[str] = []
    if ident == "status":
        text = _status(value, told)
    elif ident == "last_processed":
        text = moment_text(value, told)
    elif ident in _COUNTS:
        text = whole_digits(value) or text_of(value, told)
    else:
        text = text_of(value, told)
    notes += [Note(column, done) for done in told]
    return text


def _status(value: object, told: list[str]) -> str | None:
    text = text_of(value, told)
    if text is None:
        return None
    stripped = text.strip(BLANKS)
    known = _RESPELLED.get(stripped.translate(_SEPARATORS).casefold(), stripped)
    if known != text:
        told.append(f"{short(text)} was taken for {short(known)}")
    return known


def _mend(cells: dict[str, str], known: Mapping[str, str], notes: list[Note]) -> None:
    """Look at the well-known columns: what is odd is told, and what cannot stay is mended."""
    place = known.get("error_message", COLUMNS["error_message"])
    message = cells.get(place, "")
    if cells[known["status"]] in FAILED and not message.strip():
        cells[place] = NO_MESSAGE
        notes.append(Note(place, f"{cells[known['status']]} came without a message"))
    elif len(message) > LONGEST_CELL // 2 and len(plain(message).encode("utf-16-le")) > 2 * LONGEST_CELL:
        cells[place] = cut(message, LONGEST_CELL - 1)  # one is for the guard against formulas
        notes.append(Note(place, f"{len(message):,} characters were cut to what a cell takes"))
    if "attachments_found" in known or "attachments_downloaded" in known:
        _look_at_counts(cells, known, notes)


def _look_at_counts(cells: Mapping[str, str], known: Mapping[str, str], notes: list[Note]) -> None:
    counts = [cells.get(known.get(count, ""), "") for count in _COUNTS]
    for count, text in zip(_COUNTS, counts, strict=True):
        if text and not _is_count(text):
            notes.append(Note(known[count], f"{short(text)} is no count; it was recorded as it is"))
    found, downloaded = counts
    if found != downloaded and all(map(_is_count, counts)) and int(downloaded) > int(found):
        column = known["attachments_downloaded"]
        notes.append(Note(column, f"{downloaded} are more than the {found} found; recorded as it is"))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


# --- several columns at once -------------------------------------------------------------------------------------


def pairs_in(given: object) -> tuple[Pairs, str]:
    """Return the columns in what a caller has in hand, as far as they can be read.

    Args:
        given: A mapping, a row of pandas, a dataclass, a named tuple, or pairs of name and value.

    Returns:
        Pairs of name and value; and what could not be read, in words, or "".
    """
    pairs: Pairs = []
    unread = ""
    try:
        for pair in itertools.islice(_pairs(given), _MOST_PAIRS):  # it may well have no end
            if pair:
                pairs.append(pair)
            else:
                unread = unread or short(given)
        unread = unread or (short(given) if len(pairs) == _MOST_PAIRS else "")
    except Exception as error:  # noqa: BLE001  # what the caller's own class may raise
        unread = f"{short(given)}, which cannot be read: {one_line(error, longest=_SHOWN)}"
    return pairs, unread


def _pairs(given: Any) -> Iterator[tuple[object, object] | None]:  # noqa: ANN401  # whatever it is
    """Yield names with their values; None for what is no such pair."""
    if is_dataclass(given) and not isinstance(given, type):
        yield from ((field.name, getattr(given, field.name)) for field in fields(given))
    elif isinstance(given, tuple) and hasattr(given, "_fields"):
        yield from zip(given._fields, given, strict=True)
    elif isinstance(given, Mapping) or (hasattr(given, "items") and hasattr(given, "keys")):
        yield from given.items()
    elif hasattr(given, "keys") and hasattr(given, "__getitem__"):  # a row of sqlite3
        yield from ((name, given[name]) for name in given.keys())  # noqa: SIM118  # its items are no names
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        for item in given:
            is_pair = isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)  # noqa: PLR2004
            yield (item[0], item[1]) if is_pair else None
    else:
        yield None
