"""How a spreadsheet shows a number that is a name: the zeros and letters that its number format puts around it. Pure.

Read after ECMA-376 Part 1, 18.8.31 (numFmts). Only what makes an identifier is applied, such as 0000000 or "PO"00000;
to other numbers, amounts and shares, a format adds nothing that a CSV needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(r'"(?P<text>[^"]*)"|\\(?P<mark>.)|\[(?P<bracket>[^\]]*)\]|_.|\*.|(?P<plain>.)', re.DOTALL)
_PLACES: Final = "0#?"


class Unclear(ValueError):
    """How a format shows a number cannot be told without guessing."""


@dataclass(frozen=True, slots=True)
class _Section:
    """One of the up to four parts of a format.

    Attributes:
        parts: Literal texts, and the places of digits one by one.
        is_place: Which of them are places.
        zeros: How many places before a decimal point show a zero where there is no digit.
        is_whole: Whether it shows whole numbers as they are: no point, share, fraction or power.
        is_conditional: Whether it is for some numbers only.
    """

    parts: tuple[str, ...]
    is_place: tuple[bool, ...]
    zeros: int
    is_whole: bool
    is_conditional: bool

    def names(self) -> bool:
        """Tell whether it makes an identifier of a number: with leading zeros, or with letters right before it."""
        first = self.is_place.index(True) if True in self.is_place else 0
        return self.zeros > 1 or bool(first and self.is_whole and re.search(r"\w[-_/]?\Z", "".join(self.parts[:first])))

    def shown(self, digits: str) -> str:
        """Return how it shows a whole number."""
        texts = list(self.parts)
        for place in [index for index, is_place in enumerate(self.is_place) if is_place][::-1]:
            digits, digit = digits[:-1], digits[-1:]
            texts[place] = digit or {"0": "0", "#": "", "?": " "}[texts[place]]
            first = place
        texts[first] = digits + texts[first]
        return "".join(texts).strip()


def shown_number(text: str, number_format: str) -> str:
    """Return a number as its format shows it where that makes a name of it; else the number.

    Args:
        text: The number, without an exponent.
        number_format: Its format, as 0000000 or [$-407]0000000;@.

    Raises:
        Unclear: The format has leading zeros, and what it shows of this number cannot be told without guessing.
    """
    sections = [_parsed(part) for part in _parts(number_format)]
    is_negative = text.startswith("-")
    digits = text.removeprefix("-")
    chosen, sign = sections[0], "-" * is_negative
    if is_negative and len(sections) > 1:
        chosen, sign = sections[1], ""
    elif not digits.strip("0.") and len(sections) > 2:  # noqa: PLR2004  # the third is for zero
        chosen = sections[2]
    if any(section.is_conditional for section in sections) and any(section.names() for section in sections):
        raise Unclear
    if True not in chosen.is_place or not chosen.names() or not digits.isdigit():
        return text
    if not chosen.is_whole:
        if len(digits) < chosen.zeros:
            raise Unclear
        return text
    return sign + chosen.shown("" if digits == "0" else digits)


def _parts(number_format: str) -> list[str]:
    """Return the sections of a format, which are separated by semicolons that nothing quotes."""
    parts = [""]
    for found in _TOKEN.finditer(number_format):
        if found[0] == ";":
            parts.append("")
        else:
            parts[-1] += found[0]
    return parts


def _parsed(section: str) -> _Section:
    parts: list[str] = []
    is_place: list[bool] = []
    is_whole, is_before_point, is_conditional, zeros = True, True, False, 0
    for found in _TOKEN.finditer(section):
        plain, bracket = found["plain"], found["bracket"]
        is_conditional |= bool(bracket and bracket[0] in "<>=")  # the others are colours, languages and currencies
        literal = found["text"] or found["mark"] or plain or ""
        if plain and plain in _PLACES:
            zeros += is_before_point and plain == "0"
        elif plain and plain in ".,%/Ee@":
            is_whole, literal = False, ""
            is_before_point &= plain == ","
        if literal:
            parts.append(literal)
            is_place.append(bool(plain and plain in _PLACES))
    return _Section(tuple(parts), tuple(is_place), zeros, is_whole, is_conditional)
