"""zlib.crc32 of a part, from those of what it is a part of. Pure.

A checksum is the remainder of the bytes, as one long polynomial over GF(2), by a fixed one; so zero bytes appended to
them multiply it by a power of x, and two checksums add by exclusive or (Ross Williams, "A painless guide to CRC error
detection algorithms", 1993; zlib's crc32_combine rests on the same).
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0xEDB88320  # of CRC-32 (IEEE 802.3), its lowest power in the highest bit, as in all below
_ONE: Final = 1 << 31
_BYTE: Final = _ONE >> 8


def of_rest(before: int, after: int, length_bytes: int) -> int:
    """Return the checksum of the last bytes of a text, which nobody has to read again.

    Args:
        before: That of the text without them.
        after: That of the whole text.
        length_bytes: How many they are.
    """
    power, square = _ONE, _BYTE
    while length_bytes:
        if length_bytes & 1:
            power = _product(power, square)
        square = _product(square, square)
        length_bytes >>= 1
    return after ^ _product(before, power)


def _product(one: int, other: int) -> int:
    """Return the product of two remainders."""
    product = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product
