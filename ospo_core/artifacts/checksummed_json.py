"""Sealed JSON: a small document that carries its own sha256, so that one changed byte is noticed."""

from __future__ import annotations

import json
from typing import Any

from ospo_core.artifacts.ids import canonical_json, digest_of, plain
from ospo_core.errors import DamagedArtifactError

_SEAL = "sha256_of_this_document"


def seal(document: object) -> bytes:
    """Return `document` (a mapping or pydantic model) as indented JSON with its own digest as the first entry."""
    body = plain(document, "document")
    if not isinstance(body, dict):
        raise TypeError(f"only a mapping can be sealed, not {type(document).__name__}")
    return _render(digest_of(body), body)


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """Return the document in `data`.

    Args:
        data: what `seal` returned.
        name: address of the file, for the error.

    Raises:
        DamagedArtifactError: the bytes are not those that were sealed.
    """
    try:
        body = json.loads(data)
    except ValueError as error:
        raise damaged(name, "is not JSON") from error
    digest = body.pop(_SEAL, None) if isinstance(body, dict) else None
    if digest is None or digest != digest_of(body) or _render(digest, body) != data:
        raise damaged(name, "does not match its own digest")
    return dict(body)


def damaged(name: str, problem: str) -> DamagedArtifactError:
    """Return the error of the damaged file `name`."""
    remedy = "Delete the stage's folder, or run the stage again with --refresh, to make it anew"
    return DamagedArtifactError(f"damaged: {problem}", field=name, remedy=remedy)


def _render(digest: str, body: dict[str, Any]) -> bytes:
    """Return the bytes of a sealed document: one layout only, so that any other bytes are damage."""
    ordered = {_SEAL: digest, **json.loads(canonical_json(body))}
    return (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode()
