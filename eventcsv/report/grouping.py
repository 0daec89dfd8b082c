"""Which messages are alike: what differs from PO to PO (numbers, ids, URLs, paths) is taken out of them. Pure."""

from __future__ import annotations

import re
from typing import Final

NO_MESSAGE: Final = "(no message)"
_LONGEST: Final = 300

# A code says what happened, and stays: HTTP 404 is another trouble than HTTP 500.
_CODE: Final = (
    r"(?:^[45]\d\d\b|\b(?:HTTP(?:/\d(?:\.\d)?)?|status(?: code)?|code|errno|error|signal|response)[ :=#]{1,2}\d{1,3}\b)"
)
_DIFFERS: Final = re.compile(
    rf"(?P<keep>{_CODE})"
    r"|(?P<url>\b[a-z][a-z0-9+.-]{1,30}://[^\s\"'<>]+)"
    r"|(?P<path>(?<![\w.])(?:~|\.{1,2})?(?:/[^\s/:;,\"'<>()]+){2,}/?)"
    r"|(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    r"|\b0x[0-9a-f]+\b"
    r"|\b(?=[a-z]*\d)[0-9a-z]{16,}\b"
    r"|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b"
    r"|\b[A-Z]{1,4}[-_#]?\d{4,}\b)"
    r"|(?P<number>\d+(?:[.,:]\d+)*)",
    re.IGNORECASE,
)
_SHOWN: Final = {"url": "[URL]", "path": "[path]", "id": "[id]", "number": "[n]"}


def pattern_of(message: str, key: str = "") -> str:
    """Return what a message has in common with its like.

    Args:
        message: The message.
        key: The PO that it is of, which does not count either.

    Example:
        >>> pattern_of("TimeoutError: no answer after 30 s from https://coupa.example/orders/17")
        'TimeoutError: no answer after [n] s from [URL]'
    """
    text = " ".join(message[: 4 * _LONGEST].split())
    if key:
        text = text.replace(key, "[PO]")
    text = _DIFFERS.sub(lambda found: _SHOWN.get(found.lastgroup or "", found[0]), text)
    return (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…") or NO_MESSAGE
