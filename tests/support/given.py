"""What callers really have in hand, each with the cell that it becomes; found by its name in worker processes."""

from __future__ import annotations

import collections
import io
import itertools
import types
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HUGE: Final = 10**5000
MIB: Final = 1 << 20


class Colour(Enum):
    """An Enum of texts."""

    RED = "red"


class Number(IntEnum):
    """An Enum of numbers."""

    TWO = 2


class Word(StrEnum):
    """An Enum that is text."""

    DONE = "completed"


class Bits(Flag):
    """An Enum of bits."""

    BOTH = 3


class Mute:
    """Something that cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("mute")


class Unbound:
    """A stand-in for something that is not there: to ask it anything fails."""

    @property  # type: ignore[misc]  # the point
    def __class__(self) -> Any:
        raise RuntimeError("unbound")

    def __str__(self) -> str:
        raise RuntimeError("unbound")


class Silent(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("mute")


class Element:
    """Something of a page that can be iterated, and is more than what it yields."""

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __str__(self) -> str:
        return "<a>b</a>"


class Elsewhere:
    """A path of a class of one's own."""

    def __fspath__(self) -> bytes:
        return b"/down\xff"


@dataclass
class Found:
    """What a function may return."""

    supplier: str
    attachment_names: list[str]


class Pair(NamedTuple):
    """The same, without a class of its own."""

    STATUS: str
    SUPPLIER: str


def circular() -> list[Any]:
    """Return a list that is among its own items."""
    found: list[Any] = ["a"]
    found.append(found)
    return found


def breaking() -> Iterator[str]:
    """Yield two items and fail."""
    yield "a"
    yield "b"
    raise ConnectionError("reset")


@dataclass(frozen=True)
class Given:
    """A value and what becomes of it.

    Attributes:
        make: Makes the value, since some can be read once only.
        cell: The cell's text, or None when the column is left alone.
        at: The keyword of emit_result() that it is given as.
        told: Whether whoever gave it is told.
    """

    make: Callable[[], Any]
    cell: str | None
    at: str = "supplier"
    told: bool = False


def value(given: Any, cell: str | None, at: str = "supplier", *, told: bool = False) -> Given:
    return Given(lambda: given, cell, at, told)


FOUND: Final = "attachments_found"
NAMES: Final = "attachment_names"
WHEN: Final = "last_processed"
WHY: Final = "error_message"

GIVEN: Final[dict[str, Given]] = {
    # none
    "None": value(None, None),
    "NaN": value(float("nan"), None),
    "NaN for a count": value(float("nan"), None, FOUND),
    "NumPy's NaN": value(np.float32("nan"), None),
    "NaT": value(pd.NaT, None),
    "NA": value(pd.NA, None),
    "NA for names": value(pd.NA, None, NAMES),
    "NumPy's no time": value(np.datetime64("NaT", "s"), None),
    "NumPy's no duration": value(np.timedelta64("NaT", "s"), None),
    "NumPy's masked": value(np.ma.masked, None),
    "Decimal NaN": value(Decimal("NaN"), None),
    "signalling NaN": value(Decimal("sNaN"), None),
    # text
    "text": value("Alder & Söhne", "Alder & Söhne"),
    "empty text": value("", ""),
    "StrEnum": value(Word.DONE, "completed"),
    "NumPy's text": value(np.str_("a"), "a"),
    "UserString": value(collections.UserString("abc"), "abc"),
    "surrogate": value("a\udcff.pdf", r"a\udcff.pdf", told=True),
    "half an emoji": value("\ud83d", r"\ud83d", told=True),
    # numbers
    "True": value(True, "True"),  # it is the value
    "NumPy's True": value(np.True_, "True"),
    "int": value(-5, "-5"),
    "int of 5000 digits": value(HUGE, "1" + "0" * 5000),
    "float": value(2.0, "2.0"),
    "infinity": value(float("-inf"), "-inf"),
    "Decimal": value(Decimal("1.10"), "1.10"),
    "Fraction": value(Fraction(1, 3), "1/3"),
    "complex": value(1 + 2j, "(1+2j)"),
    "NumPy's int": value(np.int64(7), "7"),
    "NumPy's float": value(np.float32(0.1), "0.1"),
    "NumPy's array of one": value(np.array(5), "5"),
    "UUID": value(uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    # counts
    "count 2.0": value(2.0, "2", FOUND),
    "count of NumPy's float": value(np.float64(2.0), "2", FOUND),
    "count of NumPy's int": value(np.int32(2), "2", FOUND),
    "count Decimal": value(Decimal("2.00"), "2", FOUND),
    "count in text": value("2", "2", FOUND),
    "count 2.5": value(2.5, "2.5", FOUND, told=True),
    "count negative": value(-1, "-1", FOUND, told=True),
    "count of words": value("two", "two", FOUND, told=True),
    "count of Arabic digits": value("٣", "٣", FOUND, told=True),
    "count a bool": value(True, "True", FOUND, told=True),  # it is the value
    "count infinite": value(float("inf"), "inf", FOUND, told=True),
    "count a list": value([2], "2", FOUND),
    "count of 5000 digits": value(HUGE, "1" + "0" * 5000, FOUND, told=True),
    # times
    "date": value(date(2025, 10, 2), "2025-10-02"),
    "time": value(time(12, 43, 11), "12:43:11"),
    "datetime": value(datetime(2025, 10, 2, 12, 43, 11, tzinfo=UTC), "2025-10-02T12:43:11+00:00"),
    "naive datetime": value(datetime(2025, 10, 2, 12, 43, 11), "2025-10-02T12:43:11"),  # noqa: DTZ001  # the point
    "Timestamp": value(pd.Timestamp("2025-10-02 12:43"), "2025-10-02T12:43:00"),
    "datetime64": value(np.datetime64("2025-10-02T12:43"), "2025-10-02T12:43"),
    "Timedelta": value(pd.Timedelta(days=1), "1 days 00:00:00"),
    "timedelta": value(timedelta(seconds=90), "0:01:30", told=True),
    "LAST_PROCESSED elsewhere": value(
        datetime(2025, 10, 2, 12, 43, 11, tzinfo=timezone(timedelta(hours=5))), "2025-10-02T07:43:11Z", WHEN
    ),
    "LAST_PROCESSED naive": value(datetime(2025, 10, 2, 12, 43, 11), "2025-10-02T10:43:11Z", WHEN),  # noqa: DTZ001
    "LAST_PROCESSED Timestamp": value(pd.Timestamp("2025-10-02 12:43:11.000000001"), "2025-10-02T10:43:11Z", WHEN),
    "LAST_PROCESSED datetime64": value(np.datetime64("2025-10-02T12:43:11", "ns"), "2025-10-02T10:43:11Z", WHEN),
    "LAST_PROCESSED date": value(date(2025, 10, 2), "2025-10-02", WHEN),
    "LAST_PROCESSED text": value("yesterday", "yesterday", WHEN),
    "LAST_PROCESSED cleared": value("", "", WHEN),
    "LAST_PROCESSED at the end": value(
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), None, WHEN, told=True
    ),
    # paths, enums, exceptions
    "Path": value(Path("/srv/PO1"), "/srv/PO1"),
    "pure path": value(PurePosixPath("a/b"), "a/b"),
    "path of bytes": value(Elsewhere(), r"/down\xff"),
    "Enum": value(Colour.RED, "red"),
    "IntEnum": value(Number.TWO, "2"),
    "IntEnum for a count": value(Number.TWO, "2", FOUND),
    "Flag": value(Bits.BOTH, "3"),
    "exception": value(TimeoutError("no element"), "TimeoutError: no element", WHY),
    "exception without text": value(TimeoutError(), "TimeoutError", WHY),
    "exception of two lines": value(ValueError("a\n  b"), "ValueError: a b", WHY),
    "exception with a secret": value(OSError("password=hunter2"), "OSError: password=***", WHY),
    "exception that cannot be shown": value(Silent(), "Silent: (it cannot be shown)", WHY),
    "exception elsewhere": value(KeyError("PO"), "KeyError: 'PO'"),
    # several
    "names": value(["a.pdf", "b.pdf"], "a.pdf;b.pdf", NAMES),
    "one name": value("a.pdf", "a.pdf", NAMES),
    "no names": value([], "", NAMES),
    "paths as names": value([Path("a.pdf"), PurePosixPath("b.pdf")], "a.pdf;b.pdf", NAMES),
    "names with none": value(["a.pdf", None, float("nan")], "a.pdf", NAMES),
    "names with a number": value(["a.pdf", 5], "a.pdf;5", NAMES),
    "name with a surrogate": value(["a\udcff.pdf"], r"a\udcff.pdf", NAMES, told=True),
    "names a number": value(5, "5", NAMES),
    "tuple": value(("a", 1), "a;1"),
    "set": value({"b", "a"}, "a;b"),
    "generator": Given(lambda: (name for name in "ab"), "a;b", NAMES),
    "map": Given(lambda: map(str, [1, 2]), "1;2"),
    "deque": value(collections.deque([1, 2]), "1;2"),
    "range": value(range(3), "0;1;2"),
    "keys": value({"b": 1, "a": 2}.keys(), "b;a"),
    "list in a list": value([["a"], ["b", "c"]], "a;b;c"),
    "array": value(np.array([1.5, float("nan"), 2.5]), "1.5;2.5"),
    "Series": value(pd.Series(["a", None, "b"]), "a;b", NAMES),
    "Index": value(pd.Index(["a", "b"]), "a;b"),
    "generator that fails": Given(breaking, "a;b", told=True),
    "list within itself": Given(circular, "['a', [...]]", told=True),
    "mapping": value({"a": 1, "b": [None, 2.5, Decimal("1.10"), date(2025, 1, 2)]}, None),
    "mapping of NumPy's": value({1: np.int8(2), "x": np.float32(0.1), "y": np.True_}, '{"1": 2, "x": 0.1, "y": true}'),
    "read-only mapping": value(types.MappingProxyType({"é": float("nan")}), '{"é": null}'),
    # bytes and others
    "bytes": value("é".encode(), "é"),
    "bytes of no text": value(b"a\xff", r"a\xff"),
    "bytearray": value(bytearray(b"ab"), "ab"),
    "memoryview": value(memoryview(b"ab"), "ab"),
    "NumPy's bytes": value(np.bytes_(b"ab"), "ab"),
    "names as bytes": value(b"a.pdf", "a.pdf", NAMES),
    "class": value(TimeoutError, "<class 'TimeoutError'>", WHY, told=True),
    "element": value(Element(), "<a>b</a>", told=True),
    "file": Given(lambda: types.SimpleNamespace(file=io.StringIO), "namespace(file=<class '_io.StringIO'>)", told=True),
    "mute": value(Mute(), "(Mute: it cannot be shown)", told=True),
    "unbound": value(Unbound(), "(Unbound: it cannot be shown)", told=True),
    "unbound for a count": value(Unbound(), "(Unbound: it cannot be shown)", FOUND, told=True),
    "unbound LAST_PROCESSED": value(Unbound(), "(Unbound: it cannot be shown)", WHEN, told=True),
    # rules that are advice
    "status in lower case": value("completed", "COMPLETED", "status", told=True),
    "status of two words": value("No attachments", "NO_ATTACHMENTS", "status", told=True),
    "status with a hyphen": value("no-attachments", "NO_ATTACHMENTS", "status", told=True),
    "status with a line break": value("PARTIAL\n", "PARTIAL", "status", told=True),
    "status as an Enum": value(Word.DONE, "COMPLETED", "status", told=True),
    "status of their own": value("RATE-LIMIT", "RATE-LIMIT", "status"),
    "status in words": value("  not found ", "not found", "status", told=True),
    "status a number": value(5, "5", "status"),
    # long ones
    "long message": value("é" * (2 * MIB), None, WHY, told=True),
    "long text": value("x" * (2 * MIB), None, told=True),
}
"""By what it is called. A cell that is long, or that a platform decides on, is looked at by a test of its own."""


def give(_key: str, row: dict[str, str]) -> dict[str, Any]:
    """Return what column CASE names, in the column that column AT names: a function of a run."""
    return {row["AT"]: GIVEN[row["CASE"]].make()}


RETURNED: Final[dict[str, tuple[Callable[[], Any], dict[str, str]]]] = {
    "None": (lambda: None, {"STATUS": "COMPLETED"}),
    "True": (lambda: True, {"STATUS": "COMPLETED"}),
    "False": (lambda: False, {"STATUS": "FAILED", "ERROR_MESSAGE": "no message was given"}),
    "NumPy's True": (lambda: np.True_, {"STATUS": "COMPLETED"}),
    "a status": (lambda: "no attachments", {"STATUS": "NO_ATTACHMENTS"}),
    "a status of their own": (lambda: "RATE_LIMIT", {"STATUS": "RATE_LIMIT"}),
    "a status as an Enum": (lambda: Colour.RED, {"STATUS": "red"}),
    "empty mapping": (dict, {"STATUS": "COMPLETED"}),
    "keywords": (
        lambda: {"attachment_names": ["a"], "attachments_found": 1.0},
        {"STATUS": "COMPLETED", "AttachmentName": "a", "ATTACHMENTS_FOUND": "1"},
    ),
    "status none": (lambda: {"STATUS": float("nan"), "SUPPLIER": "A"}, {"STATUS": "COMPLETED", "SUPPLIER": "A"}),
    "dataclass": (
        lambda: Found("A", ["a", "b"]),
        {"STATUS": "COMPLETED", "SUPPLIER": "A", "AttachmentName": "a;b"},
    ),
    "named tuple": (lambda: Pair("PARTIAL", "A"), {"STATUS": "PARTIAL", "SUPPLIER": "A"}),
    "pairs": (lambda: [("STATUS", "PARTIAL"), ["SUPPLIER", "A"]], {"STATUS": "PARTIAL", "SUPPLIER": "A"}),
    "pairs of a generator": (lambda: iter([("SUPPLIER", "A")]), {"STATUS": "COMPLETED", "SUPPLIER": "A"}),
    "Series": (lambda: pd.Series({"SUPPLIER": "A", "n": 2}), {"STATUS": "COMPLETED", "SUPPLIER": "A", "n": "2"}),
    "exception": (
        lambda: {"STATUS": "ERROR", "ERROR_MESSAGE": TimeoutError()},
        {"STATUS": "ERROR", "ERROR_MESSAGE": "TimeoutError"},
    ),
    "contradicting counts": (
        lambda: {"ATTACHMENTS_FOUND": 1, "ATTACHMENTS_DOWNLOADED": 2},
        {"STATUS": "COMPLETED", "ATTACHMENTS_FOUND": "1", "ATTACHMENTS_DOWNLOADED": "2"},
    ),
}
"""What a function of a run returns, and the columns that come of it, LAST_PROCESSED aside."""

UNREADABLE: Final[dict[str, tuple[Callable[[], Any], str, dict[str, str]]]] = {
    "a number": (lambda: 5, "process returned 5; it may return columns", {}),
    "a list": (lambda: ["COMPLETED"], "process returned ['COMPLETED']", {}),
    "an empty list": (list, "process returned []", {}),
    "bytes": (lambda: b"COMPLETED", "process returned b'COMPLETED'", {}),
    "an exception": (lambda: TimeoutError("x"), "process returned TimeoutError('x')", {}),
    "something mute": (Mute, "process returned a Mute", {}),
    "endless": (itertools.count, "process returned count(", {}),
    "pairs and others": (lambda: [5, ("SUPPLIER", "A")], "process returned [5, (", {"SUPPLIER": "A"}),
    "a name of bytes": (lambda: {b"x": 1, "SUPPLIER": "A"}, "no text, or blank: b'x'", {"SUPPLIER": "A"}),
    "a blank name": (lambda: {" ": 1, "SUPPLIER": "A"}, "no text, or blank: ' '", {"SUPPLIER": "A"}),
    "a column twice": (lambda: {"SUPPLIER": "A", "supplier ": "B"}, "the column 'supplier ' twice", {"SUPPLIER": "A"}),
    "another key": (lambda: {"PO_NUMBER": "PO9", "SUPPLIER": "A"}, "PO_NUMBER 'PO9'", {"SUPPLIER": "A"}),
    "with a message": (lambda: {7: 1, "ERROR_MESSAGE": "no page"}, "no page; process returned", {}),
}
"""What no function should return, what is said of it, and the columns that are kept."""


def give_back(_key: str, row: dict[str, str]) -> Any:
    """Return what column CASE names: a function of a run."""
    case = row["CASE"]
    return (RETURNED[case][0] if case in RETURNED else UNREADABLE[case][0])()
