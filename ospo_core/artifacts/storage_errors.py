"""Failures of local disks and object stores as StorageError: what failed, where, and what to do about it."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ospo_core.errors import OspoError, StorageError, redact

_DISK_PROBLEMS = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk full", errno.EROFS: "read-only"}
_NEXT_TO_NOTHING = 64 * 1024
_FULL_CODES = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_SERVER_CODES = {"500", "502", "503", "504", "InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout"}
_NOT_RETRIED_BY_BOTOCORE = {"409", "ConditionalRequestConflict", "OperationAborted", "IncompleteBody"}
_CUT_SHORT = {"ClientPayloadError", "IncompleteReadError", "IncompleteRead", "ResponseStreamingError"}
_NUMBERS_OF_503_AND_500 = {errno.EBUSY, errno.EREMOTEIO}  # all that s3fs keeps of an answer without a body
_NETWORK_ERRORS = {"ClientConnectorError", "ConnectionError", "HTTPClientError", "ResponseParserError", "TimeoutError"}
_CREDENTIAL_ERRORS = {
    "CredentialRetrievalError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "TokenRetrievalError",
}
_LIBRARY_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "fsspec.exceptions": ("FSTimeoutError",),
}


class MissingObjectError(StorageError):
    """An object to be read that does not exist."""


@contextmanager
def as_storage_error(action: str, where: str, endpoint_url: str | None = None) -> Iterator[None]:
    """Raise what a filesystem raises inside the block as StorageError.

    `action` is what was tried, in the infinitive, and `where` the object's address; `endpoint_url` is named in the
    message if the store does not answer.

    Raises:
        MissingObjectError: the object does not exist, and `action` is `read`.
        StorageError: any other failure of the disk, the network or the object store.
    """
    try:
        yield
    except storage_exceptions() as error:
        raise _storage_error(error, action, redact(where), redact(endpoint_url or "")) from None


def disk_problem(error: BaseException, folder: Path | None = None) -> str:
    """Return `disk full` or `read-only` if `error` or an error behind it says so, else an empty string.

    torch and safetensors hide the system's error, so with `folder`, where they wrote, the space left there decides.
    """
    for cause in _chain(error, contexts=True):
        problem = _DISK_PROBLEMS.get(getattr(cause, "errno", None) or 0)
        if problem:
            return problem
    if folder is None or not folder.is_dir() or shutil.disk_usage(folder).free >= _NEXT_TO_NOTHING:
        return ""
    wrote = isinstance(error, OspoError | OSError | RuntimeError) or type(error).__name__ == "SafetensorError"
    return "disk full" if wrote else ""


def response_code(error: BaseException | None) -> str:
    """Return the object store's error code behind `error` (`PreconditionFailed`), or an empty string."""
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def is_left_to_the_caller(error: BaseException) -> bool:
    """Return whether `error` is a temporary failure that botocore does not retry.

    These are an answer cut short in its body, which botocore hands on as a stream, and a few error codes.
    """
    return response_code(error) in _NOT_RETRIED_BY_BOTOCORE or _has_class(error, _CUT_SHORT)


def storage_exceptions() -> tuple[type[Exception], ...]:
    """Return the exceptions that storage raises: OSError, and those of the network libraries that are loaded."""
    kinds: list[type[Exception]] = [OSError]
    for module, names in _LIBRARY_ERRORS.items():
        kinds += [getattr(sys.modules[module], name) for name in names if module in sys.modules]
    return tuple(kinds)


def _storage_error(error: Exception, action: str, where: str, endpoint: str) -> StorageError:
    """Return the StorageError for `error`."""
    code, disk = response_code(error), disk_problem(error)
    without_code = not code and getattr(error, "errno", None) in _NUMBERS_OF_503_AND_500
    if disk == "disk full" or code in _FULL_CODES:
        problem, remedy = f"disk full: cannot {action}", "Free space there and run again"
    elif disk:
        problem, remedy = f"{disk}: cannot {action}", "Choose a storage.root you can write to"
    elif isinstance(error, PermissionError) or code in {"AccessDenied", "403"} or _has_class(error, _CREDENTIAL_ERRORS):
        problem, remedy = _access_problem(action, where, code)
    elif _has_class(error, _NETWORK_ERRORS | _CUT_SHORT):
        problem = f"unreachable: {endpoint or 'the object store'} does not answer, cannot {action}"
        remedy = "Check storage.endpoint_url, the network, and that the object store is running"
    elif without_code or code in _SERVER_CODES | _NOT_RETRIED_BY_BOTOCORE:
        problem = f"the object store fails ({code or error}): cannot {action}"
        remedy = "Run again once the object store has recovered; completed work is kept"
    elif code == "NoSuchBucket":
        problem, remedy = "no such bucket", "Create the bucket, or correct storage.root"
    elif isinstance(error, FileNotFoundError) and action == "read":
        return MissingObjectError("does not exist", field=where, remedy="Check the address")
    else:
        text = redact(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        problem, remedy = f"cannot {action}: {text}", "Check storage.root and storage.endpoint_url"
    return StorageError(problem, field=where, remedy=remedy)


def _access_problem(action: str, where: str, code: str) -> tuple[str, str]:
    """Return problem and remedy of a refused access, local or remote."""
    if "://" not in where:
        problem = f"permission denied: cannot {action} (read-only?)"
        return problem, "Change its permissions, or choose another storage.root"
    remedy = "Check the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the bucket's policy"
    return f"access denied: cannot {action}" + (f" ({code})" if code else ""), remedy


def _has_class(error: BaseException, names: set[str]) -> bool:
    """Return whether the class of `error` or of one of its causes, or a base of it, has one of these names."""
    return any(kind.__name__ in names for cause in _chain(error) for kind in type(cause).__mro__)


def _chain(error: BaseException | None, contexts: bool = False) -> Iterator[BaseException]:
    """Yield `error` and its causes; with `contexts` also the errors that were being handled when it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or (error.__context__ if contexts else None)
