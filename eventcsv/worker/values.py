r"""Values to text: what anybody may give for a cell becomes the text of that cell. Pure; nothing else does it.

The guide has the table. What NumPy and pandas bring is known by the names of its types: nothing here loads them.
"""

from __future__ import annotations

import io
import itertools
import math
import numbers
import os
from collections import UserString
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Final, NamedTuple

from eventcsv.event import LONGEST_CELL, utc_text
from eventcsv.log.line import MAX_LINE_BYTES
from eventcsv.masking import masked

_MISSING_TYPES: Final = frozenset({"NAType", "NaTType", "MaskedConstant"})
_MISSING_TIMES: Final = frozenset({"datetime64", "timedelta64"})
_TRUTHS: Final = frozenset({"bool", "bool_"})
_COLLECTIONS: Final = (Sequence, AbstractSet, Iterator, ValuesView)
_MOST_WHOLE: Final = 10**40
_MOST_BITS: Final = 1_000_000  # beyond that the digits take seconds, and do not fit into a line
LONGEST_MESSAGE: Final = 1_000
"""How many characters are kept of what an error of the caller's code says."""

_SHOWN: Final = 200


class Note(NamedTuple):
    """What was done to a value that could not be recorded as it was given, or what is odd about it.

    Attributes:
        column: Its column.
        done: What was done, in words.
    """

    column: str
    done: str


def text_of(value: object, told: list[str]) -> str | None:
    """Return the text of a cell for any value.

    Args:
        value: The value, of any type.
        told: Takes what had to be done to it beyond what the table says, in words.

    Returns:
        The text, or None when the value says that there is none.
    """
    try:
        return _text(value, told)
    except Exception as error:  # noqa: BLE001  # a value of the caller's may fail in any way, and costs nothing but itself
        told.append(f"a {_kind(value)} that could not be read ({one_line(error, longest=_SHOWN)}) became its str()")
        return _str_of(value)


def is_missing(value: object) -> bool:
    """Tell whether a value says that there is none: None, NaN, and what NumPy and pandas mean by it."""
    if value is None:
        return True
    name = type(value).__name__
    if name in _MISSING_TYPES and _house(value) in {"numpy", "pandas"}:
        return True
    try:
        if not isinstance(value, numbers.Number) and not (name in _MISSING_TIMES and _house(value) == "numpy"):
            return False
        is_nan = getattr(value, "is_nan", None)  # a Decimal's; a signalling one must not be compared
        return bool(is_nan() if is_nan else value != value)  # noqa: PLR0124  # NaN and no time are not equal to themselves
    except Exception:  # noqa: BLE001  # a number, or a stand-in, of the caller's own making
        return False


def is_truth(value: object) -> bool:
    """Tell whether a value is True or False, NumPy's included."""
    return isinstance(value, bool) or (_house(value) == "numpy" and type(value).__name__ in _TRUTHS)


def whole_digits(value: object) -> str | None:
    """Return the digits of a whole number that is no int by its type: 2.0, Decimal("2.00"), numpy.float32(2)."""
    try:
        if not isinstance(value, numbers.Number) or isinstance(value, int):
            return None
        number: Any = value.item() if _house(value) == "numpy" else value  # type: ignore[attr-defined]  # NumPy's
        return str(int(number)) if abs(number) < _MOST_WHOLE and number == int(number) else None
    except Exception:  # noqa: BLE001  # a complex number, NaN, or one of the caller's own making
        return None


def moment_text(value: object, told: list[str]) -> str | None:
    """Return the text of LAST_PROCESSED: in UTC when it is a datetime, of which a naive one is local time."""
    try:
        moment = None if is_missing(value) else _moment(value)
        if moment is not None:
            return utc_text(moment, timespec="seconds")
    except Exception as error:  # noqa: BLE001  # at the ends of the calendar, or a time zone of the caller's own making
        told.append(f"stays as it is, as it cannot be told in UTC ({one_line(error, longest=_SHOWN)})")
    return text_of(value, told)


def _moment(value: Any) -> datetime | None:  # noqa: ANN401  # whatever it is
    if type(value).__name__ == "datetime64" and _house(value) == "numpy":
        value = value.astype("datetime64[us]").item()
    if not isinstance(value, datetime):
        return None
    # Of a class of its own (pandas' Timestamp) a naive one refuses to become UTC.
    fields = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
    return datetime(*fields, tzinfo=value.tzinfo, fold=value.fold)  # a naive one is local time


def one_line(error: BaseException, *, longest: int = LONGEST_CELL) -> str:
    """Return what an exception says, as one line that any cell can hold, secrets masked.

    Args:
        error: The exception.
        longest: How many characters at most.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an exception may well fail to describe itself
        text = "(it cannot be shown)"
    return cleaned(f"{type(error).__name__}: {text}" if text else type(error).__name__, longest=longest)


def cleaned(text: str, *, longest: int) -> str:
    """Return a text as one line without secrets, and not too long; nobody has looked at it before it is in the CSV."""
    line = masked(" ".join(text[: 4 * longest].split()))
    if len(text) > 4 * longest or len(line) > longest:
        return cut(line, longest, of=max(len(text), len(line)))
    return line


def short(value: object) -> str:
    """Return a value for a message: its repr(), not too long and without secrets."""
    try:
        return cleaned(repr(value), longest=_SHOWN)
    except Exception:  # noqa: BLE001  # it may fail to describe itself
        return f"a {_kind(value)}"


def plain(text: str) -> str:
    r"""Return a text that UTF-8 can hold: a lone surrogate becomes \udcff, as Python's backslashreplace writes it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def cut(text: str, longest: int, *, of: int | None = None) -> str:
    """Return as much of a text as fits with a note of the cut.

    Args:
        text: The text.
        longest: How long it may be, in UTF-16 units, as spreadsheets count.
        of: How many characters there were in all, if not those of `text`.
    """
    mark = cut_mark(of or len(text))
    units = plain(text).encode("utf-16-le")
    return units[: 2 * max(0, longest - len(mark))].decode("utf-16-le", errors="ignore") + mark


def cut_mark(characters: int) -> str:
    """Return what stands at the end of a text that was cut."""
    return f"... ({characters:,} characters, cut)"


# --- by type -----------------------------------------------------------------------------------------------------


def _text(value: object, told: list[str]) -> str | None:  # noqa: C901, PLR0911, PLR0912  # one row of the table a case
    if isinstance(value, str):
        return str.__str__(value)  # a StrEnum's member becomes its text
    if isinstance(value, Enum):
        return _text(value.value, told)
    if is_missing(value):
        return None
    if isinstance(value, numbers.Number):
        return _digits(value) if isinstance(value, int) else str(value)
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, BaseException):
        return one_line(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
        if isinstance(value, str):
            return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return _json(value, told)
    if _is_collection(value):
        return _joined(value, told)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "__array__") and hasattr(value, "__getitem__"):
        inner = value[()]
        if type(inner) is not type(value):
            return _text(inner, told)
    if not isinstance(value, UserString) and _house(value) not in {"numpy", "pandas", "uuid"}:
        told.append(f"a {_kind(value)} became its str()")
    return _str_of(value)


def _digits(value: int) -> str:
    try:
        return int.__repr__(value) if not isinstance(value, bool) else str(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits; decimal does
        import decimal  # noqa: PLC0415  # hardly anybody has such numbers

        return str(decimal.Decimal(value)) if value.bit_length() < _MOST_BITS else hex(value)


def _is_collection(value: object) -> bool:
    """Tell whether a value is there for its items; a file, a page's element and a table can be iterated, too."""
    if isinstance(value, _COLLECTIONS):
        return not isinstance(value, (io.IOBase, UserString))
    is_array = hasattr(value, "__array__") and hasattr(value, "__iter__") and not hasattr(value, "columns")
    return is_array and getattr(value, "ndim", 1) != 0


def _joined(value: object, told: list[str]) -> str:
    """Return the items, joined by ";", as far as they can be read and a line can hold them."""
    texts: list[str] = []
    size = 0
    try:
        for text in _items(value, told):
            size += 1 + len(text or "")
            if text is not None:
                texts.append(text)
            if size > MAX_LINE_BYTES:  # it may well have no end
                told.append(f"only its first {len(texts):,} items were read")
                break
    except RecursionError:  # it is among its own items
        raise
    except Exception as error:  # noqa: BLE001  # a generator of the caller's may fail in any way
        told.append(f"was read up to its item {len(texts):,}: {one_line(error, longest=_SHOWN)}")
    return ";".join(texts)


def _items(value: object, told: list[str]) -> Iterator[str | None]:
    items: Iterable[object] = value  # type: ignore[assignment]  # that it is one was seen before
    if isinstance(value, (set, frozenset)):  # whose order is another in each process
        items = sorted([text for text in [_text(item, told) for item in value] if text is not None])
    for item in items:
        if isinstance(item, str):
            yield str.__str__(item)
        elif _is_collection(item) and not isinstance(item, (bytes, bytearray, memoryview)):
            yield from _items(item, told)
        else:
            yield _text(item, told)


def _json(value: Mapping[Any, object], told: list[str]) -> str:
    import json  # noqa: PLC0415  # orjson takes no whole number beyond 64 bits

    return json.dumps(_json_value(value, told), ensure_ascii=False)


def _json_value(value: object, told: list[str]) -> object:  # noqa: PLR0911  # one type a case
    if isinstance(value, Enum):
        return _json_value(value.value, told)
    if is_missing(value):
        return None
    if is_truth(value):
        return bool(value)
    if isinstance(value, Mapping):
        return {_text(name, told) or "": _json_value(item, told) for name, item in value.items()}
    if isinstance(value, numbers.Number):
        return _json_number(value)
    if isinstance(value, (str, bytes, bytearray, memoryview)) or not _is_collection(value):
        return _text(value, told)
    items: Iterable[object] = value  # type: ignore[assignment]  # that it is one was seen before
    return [_json_value(item, told) for item in itertools.islice(items, MAX_LINE_BYTES)]


def _json_number(value: numbers.Number) -> int | float | str:
    if isinstance(value, numbers.Integral):
        whole = int(value)
        return whole if abs(whole) < _MOST_WHOLE else _digits(whole)
    if isinstance(value, float) or (_house(value) == "numpy" and isinstance(value, numbers.Real)):
        shown = float(str(value))  # of a float32 what it shows, not the digits behind it
        return shown if math.isfinite(shown) else str(value)
    return str(value)


def _str_of(value: object) -> str:
    try:
        return str.__str__(str(value))
    except Exception:  # noqa: BLE001  # it may fail to describe itself
        return f"({_kind(value)}: it cannot be shown)"


def _kind(value: object) -> str:
    return type(value).__name__


def _house(value: object) -> str:
    """Return the package that a value's type comes from."""
    return str(getattr(type(value), "__module__", "")).partition(".")[0]
