"""Errors that a person can act on: what is wrong, the value found, and what to do about it."""

from __future__ import annotations

import os
import re

_USERINFO = re.compile(r"(?<=//)[^/@\s]+@")
_SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "OPENAI_API_KEY",
    "OSPO_JUDGE_API_KEY",
    "HF_TOKEN",
)
_SHORTEST_SECRET = 8


def has_userinfo(address: str) -> bool:
    """Return whether `address` carries credentials, as in `http://user:secret@host`."""
    return _USERINFO.search(address) is not None


def redact(text: str) -> str:
    """Return `text` without `user:secret@` in addresses and without the values of variables that hold credentials."""
    for variable in _SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return _USERINFO.sub("***@", text)


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
        """Return `field: problem (got value). remedy`, without the parts that were not given."""
        text = f"{self.field}: {self.problem}" if self.field else self.problem
        if self.value is not None:
            text += f" (got {self.value!r})"
        return f"{text}. {self.remedy}".rstrip(". ") + "."


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
