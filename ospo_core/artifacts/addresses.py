"""Addresses and keys: what a storage root, the address of an object store and a key may be; others are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator

from ospo_core.errors import StorageError, has_userinfo, redact

PROTOCOLS = ("file", "s3")
"""What a root may begin with, before `://`; a root without is a local folder."""

_LIKE_AN_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:(\d{1,5}(/|$)|/)|\[[0-9a-fA-F:]*\]:?\d*$|[\d.]+:\d{1,5}(/|$)")
_LONGEST_NAME = 255
_SUPPORTED = "Give a local folder, file:///folder, or s3://bucket/prefix"


def split_root(root: str) -> tuple[str, str]:
    """Return the protocol of a storage root, and the root as used: an absolute path, or `s3://bucket/prefix`.

    Raises:
        StorageError: it carries credentials, names no place, or is neither a local folder nor on S3.
    """
    if has_userinfo(root):
        raise _credentials("storage.root")
    protocol, separator, path = root.rpartition("://")
    protocol = protocol if separator else "file"
    if protocol not in PROTOCOLS:
        raise _bad_root(f"protocol {redact(protocol)}:// is not supported", root)
    if not path.strip("/") and (protocol != "file" or not path):
        raise _bad_root("names no place", root)
    if not separator and _LIKE_AN_ADDRESS.match(path):
        remedy = f"{_SUPPORTED}; the address of an object store, http://host:port, is storage.endpoint_url"
        raise _bad_root("is an address without a protocol", root, remedy)
    if "\0" in root or not _is_text(root):
        raise _bad_root("has characters that no name can have", root)
    return protocol, _local_root(path, root) if protocol == "file" else root.rstrip("/")


def check_endpoint(address: str, field: str = "storage.endpoint_url") -> None:
    """Check the address of an object store.

    Raises:
        StorageError: it carries credentials, or is not `http://host:port` or `https://host:port`.
    """
    if has_userinfo(address):
        raise _credentials(field)
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket or a port that is none
        usable = False
    if not usable or not address.isprintable() or " " in address:
        remedy = "Give http://host:port or https://host:port"
        raise StorageError("is not the address of a server", field=field, value=redact(address), remedy=remedy)


def checked_key(key: str) -> str:
    """Return `key` if it is a plain relative key.

    Raises:
        StorageError: it is empty or absolute, contains `..`, is not normalised, or has unprintable characters.
    """
    if not is_key(key):
        remedy = "A key is relative and stays below the root: no '..', no leading '/'"
        raise StorageError("is not a key", field="key", value=redact(key), remedy=remedy)
    return key


def is_key(key: str) -> bool:
    """Return whether `key` is a plain relative key, see `checked_key`."""
    odd = "\\" in key or "://" in key or not key.isprintable() or key != str(PurePosixPath(key)) or key == "."
    return bool(key) and not odd and not key.startswith("/") and ".." not in key.split("/")


def _key(text: str) -> str:
    """Return `text` if it is a key; else raise ValueError, as pydantic expects."""
    if not is_key(text):
        raise ValueError("is not a key: relative, normalised, below the root")
    return text


StorageKey: TypeAlias = Annotated[str, AfterValidator(_key)]
"""A key, or a file's name: the field type of every place in a storage that is read back."""


def _local_root(path: str, root: str) -> str:
    """Return the absolute path of a local root."""
    try:
        folder = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise _bad_root("names a user whom this machine does not know", root, "Write out the folder") from error
    if any(len(os.fsencode(name)) > _LONGEST_NAME for name in folder.parts):
        raise _bad_root(f"has a name longer than {_LONGEST_NAME} bytes", root, "Choose a shorter name")
    return str(folder)


def _is_text(text: str) -> bool:
    """Return whether `text` can be written as UTF-8, which halves of characters cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_root(problem: str, root: str, remedy: str = _SUPPORTED) -> StorageError:
    return StorageError(problem, field="storage.root", value=redact(root), remedy=remedy)


def _credentials(field: str) -> StorageError:
    remedy = "Give credentials through the environment, e.g. AWS_ACCESS_KEY_ID"
    return StorageError("an address must not carry credentials", field=field, remedy=remedy)
