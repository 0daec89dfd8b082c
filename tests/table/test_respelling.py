"""What a program that saves the CSV makes of its cells is the same value; what a person types is another one."""

from __future__ import annotations

import pytest

from eventcsv.table.respelling import alike, is_lossy


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("007", "7"),
        ("TRUE", "True"),
        ("1,5", "1.5"),
        (" a", "a "),
        ("2025-10-02T12:43:11Z", "02.10.2025 12:43"),
        ("2025-10-02", "10/02/2025"),
        ("2025-10-02 00:00:00", "2/10/25"),
        ("1e3", "1000"),
    ],
)
def test_what_a_program_rewrites_is_the_same_value(one: str, other: str) -> None:
    """Either way round."""
    assert alike(one, other)
    assert alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "2"), ("", "0"), ("a", "b"), ("2025-10-02", "2025-10-03"), ("x1", "x1.0"), ("nan", "NaN ")]
)
def test_what_is_another_value_is_not(one: str, other: str) -> None:
    """Nor is nothing the same as zero."""
    assert alike(one, other) == (one.strip() == other.strip())


def test_keys_that_a_program_makes_of_keys() -> None:
    """Zeros lost, floats, exponents, quotes; and not what a person may mean."""
    assert all(is_lossy("000017", form) for form in ("17", "17.0", "17,0", '"000017"', "'000017'"))
    assert all(is_lossy("4500000099", form) for form in ("4500000099.0", "4,5E+09", "4.5E+09"))
    assert not any(is_lossy("17", form) for form in ("000017", "18", "017", ""))
