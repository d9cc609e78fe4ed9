"""Messages name field, value and remedy; they show no credential, end somewhere, and control no terminal."""

from __future__ import annotations

import time

import pytest

from ospo_core.errors import ConfigError, OspoError, has_userinfo, printable, redact, shortened

CREDENTIALS = [
    "http://me:hush@host",
    "s3://hush@bucket/prefix",
    "http://me:hu/sh@host",
    "http://me:hu@sh@host",
    "http://me:hush blank@host",
    "ray://me:hush@host:10001",
    "//me:hush@host",
    "http://me:hush\N{FULLWIDTH COMMERCIAL AT}host",
]
PLAIN = [
    "http://host:8000/a@b",
    "http://[::1]:9/a@b",
    "s3://bucket/me@home",
    "file:///data/me@home",
    "OWNER/NAME@REVISION",
    "/data//me@home",
    "embedded:shapes",
]


@pytest.mark.parametrize("address", [*CREDENTIALS, "me:hush@host:9000", "http:/me:hush@host"])
def test_no_message_shows_credentials(address: str) -> None:
    field = address.replace(" ", "")
    shown = str(OspoError(f"{field} is wrong", field=field, value=address, remedy=f"Not {field}"))
    inside = str(OspoError("is wrong", value=[{"url": field}]))
    for secret in ("hush", "hu/sh", "hu@sh"):
        assert secret not in shown and secret not in inside
    assert "***@" in shown


@pytest.mark.parametrize("address", CREDENTIALS)
def test_addresses_with_credentials_are_recognised(address: str) -> None:
    assert has_userinfo(address)


@pytest.mark.parametrize("address", PLAIN)
def test_an_at_sign_elsewhere_is_no_credential(address: str) -> None:
    assert not has_userinfo(address)


def test_keys_of_queries_and_of_the_environment_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert redact("http://h/?api-key=hush&x=1 said sk-very-secret") == "http://h/?api-key=***&x=1 said ***"
    long = "x" * 2000
    assert "very" not in str(OspoError(f"{long}sk-very-secret{long}", value=f"{long}sk-very-secret{long}"))


def test_an_address_that_was_taken_for_an_option_shows_no_key() -> None:
    shown = str(ConfigError("unknown option", field="https://host/?api_key", value="hush", remedy="Known: name"))
    assert shown == "https://host/?api_key: unknown option (got ***). Known: name."


def test_long_values_are_shortened_in_the_middle() -> None:
    shown = str(OspoError("is wrong", field="f" * 10**6, value="v" * 10**6, remedy="Mend it"))
    assert len(shown) < 2000 and shown.endswith("Mend it.") and "characters left out" in shown
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefgh", 4) == "ab ... (4 characters left out) ... gh"


@pytest.mark.parametrize("text", ["a" * 10**6, "//" * 10**6, "//a:b" * 10**5, "a:" * 10**5, "@" + "//a:b" * 10**5])
def test_redaction_takes_linear_time(text: str) -> None:
    start = time.process_time()
    redact(text)
    str(OspoError(text, field=text, value=text, remedy=text))
    assert time.process_time() - start < 5


def test_no_text_controls_the_terminal() -> None:
    assert printable("\x1b[2J\u202e\ud800 é\N{NARROW NO-BREAK SPACE}\n\t") == (
        "\\x1b[2J\\u202e\\ud800 é\N{NARROW NO-BREAK SPACE}\n\t"
    )
    str(OspoError("\ud800", field="\udcff")).encode()
