"""Values as programs rewrite them: what a spreadsheet or a data frame makes of a cell that nobody typed into. Pure.

Whoever saves a CSV may save `1.0` for `1`, `7` for `007`, `TRUE` for `True`, or a day in the order of their country.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from itertools import permutations
from typing import Final

from eventcsv.event import BLANKS

_WORDS: Final = {"true": "true", "wahr": "true", "vrai": "true", "false": "false", "falsch": "false", "faux": "false"}
_MOMENT = re.compile(
    r"(\d{1,4})([-./])(\d{1,2})\2(\d{1,4})"  # the day
    r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?(?: ?([AaPp])\.?[Mm]\.?)?)?"  # the time
    r"(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?"
)
_SCIENTIFIC = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]?\d+")
_NOON: Final = 12
_MONTHS: Final = 12
_DAYS: Final = 31
_LONG_YEAR: Final = 1000
_CENTURY: Final = 2000

_Day = tuple[int, int, int]
_Time = tuple[int, ...]


@lru_cache(maxsize=1 << 16)
def alike(one: str, other: str) -> bool:
    """Tell whether two texts may be the same value, written by different programs."""
    one, other = one.strip(BLANKS), other.strip(BLANKS)
    if one == other:
        return True
    if not one or not other:
        return False
    if _WORDS.get(one.casefold(), one) == _WORDS.get(other.casefold(), other):
        return True
    numbers = _number(one), _number(other)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _is_same_moment(one, other)


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _is_same_moment(one: str, other: str) -> bool:
    mine, theirs = _moment(one), _moment(other)
    if mine is None or theirs is None:
        return False
    (days, time), (other_days, other_time) = mine, theirs
    shown = min(len(time), len(other_time))  # a format may leave the seconds out, or midnight
    rest = (*time[shown:], *other_time[shown:])
    return bool(days & other_days) and time[:shown] == other_time[:shown] and (shown > 0 or not any(rest))


def _moment(text: str) -> tuple[frozenset[_Day], _Time] | None:
    """Return the days that a date may mean, and the time with it, or None when it is none."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    days = frozenset(filter(None, map(_day, permutations(map(int, found.group(1, 3, 4))))))
    time = tuple(int(part) for part in found.group(5, 6, 7) if part)
    if found[8]:
        time = (time[0] % _NOON + _NOON * (found[8] in "Pp"), *time[1:])
    return days, time


def _day(parts: tuple[int, ...]) -> _Day | None:
    year, month, day = parts
    if not (1 <= month <= _MONTHS and 1 <= day <= _DAYS):
        return None
    return (year if year >= _LONG_YEAR else _CENTURY + year, month, day)


def is_lossy(key: str, saved: str) -> bool:
    """Tell whether `saved` is what a program makes of a key that it takes for a number, or that it quotes once more."""
    if key == saved or not saved:
        return False
    if any(saved == f"{quote}{key}{quote}" for quote in "\"'"):
        return True
    if not key.isdecimal():
        return False
    if _SCIENTIFIC.fullmatch(saved):
        digits = saved.upper().replace(",", ".").partition("E")[0].replace(".", "").rstrip("0")
        return (
            key.lstrip("0").startswith(digits[:-1])
            and Decimal(saved.replace(",", ".")).adjusted() == Decimal(key).adjusted()
        )
    plain = re.sub(r"[.,]0+$", "", saved)
    return plain.isdecimal() and (plain == key or (key.startswith("0") and plain == (key.lstrip("0") or "0")))


def lossy_forms(key: str) -> tuple[str, ...]:
    """Return what a key that is a number becomes in most programs, so that it can be looked up."""
    plain = key.lstrip("0") or "0"
    forms = [f'"{key}"', f"'{key}'"]
    if key.isdecimal():
        forms += [plain] * (plain != key) + [f"{number}{end}" for number in (key, plain) for end in (".0", ",0")]
    return tuple(forms)
