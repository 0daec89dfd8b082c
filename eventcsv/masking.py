"""What log output may say: secrets and personal data masked, control characters escaped.

The library logs through the standard logger "eventcsv" with structlog's event names and fields. It configures nothing
and prints nothing: until an application attaches a handler, its records go nowhere.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from structlog.stdlib import BoundLogger

MASK: Final = "***"

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|authori[sz]ation|cookie|credential|session[-_]?key",
    re.IGNORECASE,
)
# Each begins where no part of it can have begun before, and is bounded: a long word must not be searched once a letter.
_SECRETS_IN_TEXT: Final = (
    # the query and fragment of a URL, then the user and password before its host
    (
        re.compile(r"((?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://[^\s?#\"'<>]{0,4000})[?#][^\s\"'<>]*", re.IGNORECASE),
        rf"\1?{MASK}",
    ),
    (re.compile(r"((?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://)[^\s/?#\"'<>]{0,1000}@", re.IGNORECASE), rf"\1{MASK}@"),
    # Authorization: Bearer abc, Basic abc
    (re.compile(r"\b(bearer|basic|digest|negotiate)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    # password=abc, "token": "abc", api_key: abc, Cookie: a=b
    (
        re.compile(
            r"((?<![\w-])[\w-]{0,64}(?:pass(?:word|wd|phrase)|secret|token|api[-_]?key|access[-_]?key|cookie|credential)"
            r"[\w-]{0,64}[\"']?\s{0,8}[:=]\s{0,8})"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # keys that are known by their shape: JSON web tokens, AWS, GitHub, Slack
    (re.compile(r"(?<![\w-])eyJ[\w-]+\.[\w-]+(\.[\w-]*)?"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}"), MASK),
    (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63})+"), MASK),
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|[\ud800-\udfff]")


def escaped(text: str) -> str:
    """Return `text` with control characters as escapes, so that it cannot steer a terminal or forge a line."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def masked(text: str) -> str:
    """Return `text` with secrets, e-mail addresses and the user, password and query of URLs replaced by ***."""
    for pattern, replacement in _SECRETS_IN_TEXT:
        text = pattern.sub(replacement, text)
    return escaped(text)


def masked_value(name: str, value: object) -> object:
    """Return `value` of the field `name` as it may be logged, containers included."""
    if _SECRET_NAME.search(name) and value is not None:
        return MASK
    if isinstance(value, str):
        return "\n".join(map(masked, value.split("\n"))) if name == "exception" else masked(value)
    if isinstance(value, dict):
        return {masked(str(key)): masked_value(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [masked_value("", item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return masked(str(value))


def mask_processor(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Mask every field of a log event; a structlog processor."""
    return {name: masked_value(name, value) for name, value in fields.items()}


@cache
def get_logger() -> BoundLogger:
    """Return the library's logger."""
    import structlog  # noqa: PLC0415  # 100 ms that a worker with nothing to say does not pay

    logger = logging.getLogger("eventcsv")
    logger.addHandler(logging.NullHandler())
    bound: BoundLogger = structlog.wrap_logger(
        logger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_processor,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return bound
