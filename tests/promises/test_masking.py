"""The promise: log output carries no secrets and cannot be forged."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from eventcsv.masking import MASK, get_logger, masked, masked_value

SECRETS = (
    "password=hunter2",
    '"password": "hunter2"',
    "PASSWORD: hunter2,",
    "api_key=hunter2&x=1",
    "api-key: hunter2",
    "https://user:hunter2@coupa.example/orders",
    "https://coupa.example/orders?session=hunter2",
    "https://coupa.example/orders#hunter2",
    "Authorization: Bearer hunter2hunter2",
    "Basic aHVudGVyMjpodW50ZXIy-hunter2",
    "Cookie: sid=hunter2",
    "mail hunter2@example.com",
    "eyJhbGciOiJIUzI1NiJ9.hunter2.sig",
    "ghp_hunter2hunter2hunter2",
    "access_token='hunter2'",
)


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_masked(text: str) -> None:
    """Each shape of secret is replaced, and that something was there stays visible."""
    assert "hunter2" not in masked(f"before {text} after")
    assert MASK in masked(text)


@pytest.mark.parametrize(
    "text", ["PO15262984 took 3.2 s", "/data/input.csv, line 3: a quote is opened", "https://coupa.example/orders/1"]
)
def test_plain_text_stays(text: str) -> None:
    """What is no secret is left alone."""
    assert text == masked(text)


def test_containers_and_fields_are_masked() -> None:
    """A field whose name says secret is masked whatever it holds, at any depth."""
    given = {"token": 5, "list": ["a@b.example", {"Password": "x", "n": 1}], "n": 1.5}
    assert {"token": MASK, "list": [MASK, {"Password": MASK, "n": 1}], "n": 1.5} == masked_value("fields", given)


def test_a_line_cannot_be_forged() -> None:
    """Line ends and control characters in a value come out as escapes."""
    assert "a\\u000ab\\u001b[2J" == masked_value("error", "a\nb\x1b[2J")


def test_the_library_logs_through_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    """Events have a name and fields, masked."""
    with caplog.at_level(logging.WARNING, logger="eventcsv"):
        get_logger().warning("append.retry", error="password=hunter2", attempt=1)
    record = caplog.records[0].msg
    assert isinstance(record, dict)
    assert ("append.retry", f"password={MASK}", 1) == (record["event"], record["error"], record["attempt"])


def test_an_application_without_logging_sees_nothing() -> None:
    """The library configures no logging and prints nothing by itself."""
    code = "from eventcsv.masking import get_logger; get_logger().error('append.failed', error='x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("", "") == (done.stdout, done.stderr)


def test_long_words_take_no_longer_than_others() -> None:
    """A megabyte of letters without a blank, such as a picture in base64, is masked at once and not in hours."""
    for text in ("a" * 1_000_000, "a-" * 500_000, "a." * 500_000, "token" * 200_000, "x@" * 500_000, "a://" * 50_000):
        assert "\x1b" not in masked(text)
    assert "*** and ***" == masked("a" * 40 + "@mail.example and b.c+d@x-y.org")
    assert "my_token=***" == masked("my_token=abc")
