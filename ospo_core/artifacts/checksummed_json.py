"""JSON with a checksum: a small document that contains its own sha256, so that a single changed byte is noticed.

Own code because JSON has no checksum of its own and the libraries that sign JSON (JOSE) need keys.
"""

from __future__ import annotations

import json
from typing import Any

from ospo_core.artifacts.ids import canonical_json, digest_of, plain
from ospo_core.errors import DamagedArtifactError, OspoError

_CHECKSUM = "sha256_of_this_document"


def dump_checksummed(document: object) -> bytes:
    """Return `document` (a mapping or pydantic model) as indented JSON with its own digest as the first entry."""
    body = plain(document, "document")
    if not isinstance(body, dict):
        raise TypeError(f"only a mapping can be given a checksum, not {type(document).__name__}")
    return _render(digest_of(body), body)


def load_checksummed(data: bytes, name: str, required: bool = True) -> dict[str, Any]:
    """Return the document that `dump_checksummed` made into `data`; an error names the file `name`.

    Unless the checksum is `required`, a document without one is accepted, as earlier versions wrote a few.

    Raises:
        DamagedArtifactError: the bytes are not those that were written.
    """
    try:
        body = json.loads(data)
        digest = body.pop(_CHECKSUM, None) if isinstance(body, dict) else None
        if isinstance(body, dict) and digest is None and not required:
            return body
        whole = digest is not None and digest == digest_of(body) and _render(digest, body) == data
    except (ValueError, RecursionError, OspoError) as error:  # not JSON, too deep, not finite or half a character
        raise damaged(name, "is not JSON that this project writes") from error
    if not whole:
        raise damaged(name, "does not match its own digest")
    return dict(body)


def damaged(name: str, problem: str) -> DamagedArtifactError:
    """Return the error for the damaged file `name`."""
    remedy = "Delete the stage's folder, or run the stage again with --refresh, to compute it anew"
    return DamagedArtifactError(f"damaged: {problem}", field=name, remedy=remedy)


def _render(digest: str, body: dict[str, Any]) -> bytes:
    """Return the bytes of a document with its checksum, in the only valid layout: any other bytes are damage."""
    ordered = {_CHECKSUM: digest, **json.loads(canonical_json(body))}
    return (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode()
