"""Failures of local disks and object stores, retold as StorageError: what failed, where, and what to do."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ospo_core.errors import StorageError

Answer = TypeVar("Answer")

_TRIES, _FIRST_WAIT_S = 5, 0.1
_FULL_CODES = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_NETWORK_FAULTS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "fsspec.exceptions": ("FSTimeoutError",),
}
_PASSING_CODES = {"500", "502", "503", "504", "409", "InternalError", "ServiceUnavailable", "SlowDown"}
_PASSING_CODES |= {"ConditionalRequestConflict", "OperationAborted", "IncompleteBody", "RequestTimeout"}
_PASSING_NUMBERS = {errno.EBUSY, errno.EREMOTEIO}
"""What s3fs makes of 503 and 500 where it keeps no code."""
_USERINFO = re.compile(r"(?<=//)[^/@\s]+@")
_SHORTEST_SECRET = 8
_SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class MissingObjectError(StorageError):
    """An object that was to be read and is not there."""


def has_userinfo(address: str) -> bool:
    """Return whether `address` carries credentials, as in `http://user:secret@host`."""
    return _USERINFO.search(address) is not None


def redact(text: str) -> str:
    """Return `text` without `user:secret@` in addresses and without the values of AWS credential variables."""
    for variable in _SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return _USERINFO.sub("***@", text)


@contextmanager
def storage_faults(action: str, where: str, endpoint_url: str | None = None) -> Iterator[None]:
    """Turn what a filesystem raises inside the block into StorageError.

    Args:
        action: what was tried, in the infinitive; only of `read` can it be said that the object is missing.
        where: the object's address.
        endpoint_url: the object store's endpoint, named where it does not answer.

    Raises:
        MissingObjectError: the object is not there.
        StorageError: any other failure of the disk, the network or the object store.
    """
    try:
        yield
    except fault_kinds() as error:
        raise _fault(error, action, redact(where), redact(endpoint_url or "")) from None


def response_code(error: BaseException | None) -> str:
    """Return the object store's error code behind `error` (`PreconditionFailed`), or an empty string."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def is_passing(error: BaseException) -> bool:
    """Return whether `error` is a hiccup of the network or of the object store, so that the next try may go well."""
    if isinstance(error, FileExistsError | PermissionError):
        return False
    code, number = response_code(error), getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError):
        return code == "NoSuchUpload"  # it was completed or given up by a request whose answer was lost
    return code in _PASSING_CODES or (not code and number in _PASSING_NUMBERS) or _is_unreachable(error)


def tried_again(operation: Callable[[], Answer], seconds: float) -> Answer:
    """Return what `operation` gives; where it fails in passing, try a few times more, with growing pauses.

    Args:
        operation: may be done twice, since the answer may be all that was lost.
        seconds: no try is begun later than this.
    """
    started = time.monotonic()
    for failures in range(1, _TRIES):
        try:
            return operation()
        except fault_kinds() as error:
            if not is_passing(error) or time.monotonic() - started > seconds:
                raise
        time.sleep(_FIRST_WAIT_S * 2**failures)
    return operation()


def fault_kinds() -> tuple[type[Exception], ...]:
    """Return the exceptions that storage raises: OSError, and those of the network libraries that are loaded."""
    kinds: list[type[Exception]] = [OSError]
    for module, names in _NETWORK_FAULTS.items():
        kinds += [getattr(sys.modules[module], name) for name in names if module in sys.modules]
    return tuple(kinds)


def _fault(error: Exception, action: str, where: str, endpoint: str) -> StorageError:
    """Return the StorageError that retells `error`."""
    code, number = response_code(error), getattr(error, "errno", None)
    if number in {errno.ENOSPC, errno.EDQUOT} or code in _FULL_CODES:
        return StorageError(f"disk full: cannot {action}", field=where, remedy="Free space there and run again")
    if number == errno.EROFS:
        return StorageError(f"read-only: cannot {action}", field=where, remedy="Choose a storage.root you can write")
    if _is_access(error, code):
        return _access_fault(action, where, code)
    if is_passing(error) and not _is_unreachable(error):
        remedy = "Run again when the object store is well; what is complete is kept"
        return StorageError(f"the object store fails ({code or error}): cannot {action}", field=where, remedy=remedy)
    if _is_unreachable(error):
        return _unreachable_fault(action, where, endpoint)
    if code == "NoSuchBucket":
        return StorageError("no such bucket", field=where, remedy="Create the bucket, or correct storage.root")
    if isinstance(error, FileNotFoundError) and action == "read":
        return MissingObjectError(f"nothing there to {action}", field=where, remedy="Check the address")
    text = redact(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    remedy = "Check storage.root and storage.endpoint_url"
    return StorageError(f"cannot {action}: {text}", field=where, remedy=remedy)


def _is_access(error: Exception, code: str) -> bool:
    """Return whether `error` says that the credentials or the permissions do not suffice."""
    names = {kind.__name__ for kind in type(error).__mro__}
    missing = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
    return isinstance(error, PermissionError) or code in {"AccessDenied", "403"} or bool(names & missing)


def _access_fault(action: str, where: str, code: str) -> StorageError:
    """Return the error of a refused access, local or remote."""
    if "://" not in where:
        remedy = "Change its permissions, or choose another storage.root"
        return StorageError(f"permission denied: cannot {action} (read-only?)", field=where, remedy=remedy)
    remedy = "Check the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the bucket's policy"
    reason = f" ({code})" if code else ""
    return StorageError(f"access denied: cannot {action}{reason}", field=where, remedy=remedy)


def _is_unreachable(error: BaseException | None) -> bool:
    """Return whether `error` or one of its causes is a failure to get an answer over the network."""
    network = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"}
    network |= {"ClientConnectorError", "FSTimeoutError", "ProxyConnectionError", "SSLError", "ServerTimeoutError"}
    network |= {"HTTPClientError", "ClientPayloadError", "IncompleteReadError", "ResponseParserError"}
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & network or isinstance(error, (ConnectionError, TimeoutError)):
            return True
        error = error.__cause__
    return False


def _unreachable_fault(action: str, where: str, endpoint: str) -> StorageError:
    """Return the error of an object store that does not answer."""
    return StorageError(
        f"unreachable: {endpoint or 'the object store'} does not answer, cannot {action}",
        field=where,
        remedy="Check storage.endpoint_url, the network, and that the object store is running",
    )
