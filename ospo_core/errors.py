"""Errors that a person can act on: what is wrong, the value found, and what to do about it."""

from __future__ import annotations

import os
import re
import unicodedata

_USERINFO = re.compile(r"(?:^|:)//[^/@]*@|(?:^|:)//[^/@:\[]*:(?!\d*/)[^@]*@")
"""Credentials in an address, also with a password that holds a slash; a colon before a slash may also be a port's."""
_BARE_USERINFO = re.compile(r"^[^/@:]*:(?!//)[^@]*@")
"""Credentials in an address whose `//` is missing, as in `user:secret@host`."""
_USERINFO_IN_TEXT = re.compile(
    r"(?<=//)(?:[^/\s]*|[^/\s@:\[]*:(?!\d*/)\S{0,500})[@\uff20\ufe6b]|(?<![^\s/'\"(:=])[^\s/'\"(:=]+:[^\s/:]+@"
)
"""The same in the midst of a text, where a blank ends an address; U+FF20 and U+FE6B are other forms of `@`."""
_SECRET_IN_QUERY = re.compile(
    r"(?i)([?&][^=&\s]{0,50}(?:key|token|secret|signature|credential|passw)[^=&\s]{0,50}=)[^&\s'\"]+"
)
_SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "OPENAI_API_KEY",
    "OSPO_JUDGE_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
)
_SHORTEST_SECRET = 8
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All control characters but line end and tab, those that change the direction of writing, and surrogates."""
_LONGEST_VALUE, _LONGEST_TEXT = 500, 5000
"""Characters of a field or a value, and of a sentence, that a message shows."""


def has_userinfo(address: str, *, bare: bool = False) -> bool:
    """Return whether `address` carries credentials, as in `http://user:secret@host`; `bare`: also without `//`."""
    plain = unicodedata.normalize("NFKC", address)
    return _USERINFO.search(plain) is not None or (bare and _BARE_USERINFO.search(plain) is not None)


def redact(text: str) -> str:
    """Return `text` without users and keys in addresses, and without the values of variables that hold credentials."""
    for variable in _SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return _SECRET_IN_QUERY.sub(r"\1***", _USERINFO_IN_TEXT.sub("***@", text))


def shortened(text: str, longest: int) -> str:
    """Return `text`, with its middle left out where it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} ... ({len(text) - 2 * half} characters left out) ... {text[-half:]}"


def _shown(text: str, longest: int) -> str:
    """Return what a message shows of `text`: no credential, no half of one, and not much more than `longest`."""
    return shortened(redact(shortened(text, 4 * longest)), longest)


def _shown_value(value: object) -> str:
    """Return what a message shows of a value."""
    if isinstance(value, str) and has_userinfo(value, bare=True):
        scheme, slashes, _ = value.partition("//")
        value = f"{scheme}//***@{value.rpartition('@')[2]}" if slashes else f"***@{value.rpartition('@')[2]}"
    return _shown(repr(value), _LONGEST_VALUE)


def printable(text: str) -> str:
    """Return `text` as a terminal may show it: what would control it, and halves of characters, as escapes."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class OspoError(Exception):
    """Base of every expected failure; the command line prints it as one message and exits with `exit_code`.

    Args:
        problem: what is wrong, in one sentence.
        field: the option, column or file it concerns.
        value: the offending value, shown by `repr`.
        remedy: what to do next.
    """

    exit_code = 1

    def __init__(self, problem: str, *, field: str = "", value: object = None, remedy: str = "") -> None:
        self.problem, self.field, self.value, self.remedy = problem, field, value, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return `field: problem (got value). remedy`, without the parts that were not given.

        No credential is shown, and what is very long is shortened in the middle.
        """
        field, problem = _shown(self.field, _LONGEST_VALUE), _shown(self.problem, _LONGEST_TEXT)
        text = f"{field}: {problem}" if field else problem
        if self.value is not None:
            secret = _SECRET_IN_QUERY.search(f"{self.field}=x")  # an address that was taken for OPTION=VALUE
            text += f" (got {'***' if secret else _shown_value(self.value)})"
        remedy = _shown(self.remedy, _LONGEST_TEXT)
        return printable(f"{text}. {remedy}".rstrip(". ") + ".")


class ConfigError(OspoError):
    """A profile, an override or a command line that cannot be used (exit code 2)."""

    exit_code = 2


class StorageError(OspoError):
    """Storage that is full, or that cannot be reached, read or written."""


class DamagedArtifactError(StorageError):
    """A shard or manifest whose bytes do not match what was published."""


class ModelError(OspoError):
    """A model folder that is missing, incomplete or not a supported model."""


class MissingModelError(ModelError):
    """A model that is not on this machine."""


class StageError(OspoError):
    """A stage without a usable result: no prompts, an unmet quota, no pairs."""


class TrainingError(OspoError):
    """A training process that failed, collapsed or was stopped."""
