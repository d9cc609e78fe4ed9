"""Options that hold addresses: a configuration is stored and shown, so no address in it carries credentials.

The forms also stand in the JSON schema, by which a Prefect server refuses parameters before it stores them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ospo_core.errors import has_userinfo

_HOLDS_USERINFO = "holds a user name or a password, which would be stored; give credentials in environment variables"
_LONGEST, _LONGEST_NAME = 2000, 255


def refuse_userinfo(value: object) -> None:
    """Raise ValueError if `value`, or an item of the list `value`, is an address with credentials."""
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, str) and has_userinfo(one):
            raise ValueError(_HOLDS_USERINFO)


def _server(url: str) -> str:
    """Return the address of a server; raises ValueError where it is none, or where it could hold a secret."""
    if has_userinfo(url, bare=True):
        raise ValueError(_HOLDS_USERINFO)
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or " " in url or not url.isprintable():
        raise ValueError("is not an address such as http://host:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("holds a user name, a query or a fragment; give credentials in environment variables")
    return url


def _place(root: str) -> str:
    """Return the address of a storage; raises ValueError where it carries credentials."""
    if has_userinfo(root, bare=True):
        raise ValueError(_HOLDS_USERINFO)
    return _folder(root)


def _folder(path: str) -> str:
    """Return a path; raises ValueError where no file system takes it, or its home folder is nobody's."""
    if "\0" in path or any(len(part.encode(errors="replace")) > _LONGEST_NAME for part in path.split("/")):
        raise ValueError(f"is not a path: it holds the character NUL, or a name longer than {_LONGEST_NAME} bytes")
    if path.startswith("~"):
        try:
            Path(path).expanduser()
        except RuntimeError:
            raise ValueError("names the home folder of nobody") from None
    return path


ServerAddress = Annotated[
    str, Field(max_length=_LONGEST, json_schema_extra={"pattern": r"^https?://[^\s@?#]+$"}), AfterValidator(_server)
]
"""Address of an HTTP server, without user, query and fragment."""
StorageAddress = Annotated[
    str, Field(max_length=_LONGEST, json_schema_extra={"pattern": r"^(?!([^/]*:)?//[^/]*@)"}), AfterValidator(_place)
]
"""A folder, or an address such as s3://bucket/prefix, without user."""
Folder = Annotated[str, Field(min_length=1, max_length=_LONGEST), AfterValidator(_folder)]
"""A folder of this machine."""
