"""Credentials of the object store from a Prefect block, for machines whose environment has none."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from ospo_core.errors import ConfigError

NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
)
"""What a block may hold: environment variables that the object store's library reads."""

FIELD = "storage.credentials_block"


@lru_cache(maxsize=8)
def use_credentials(block: str) -> None:
    """Put what a Secret block holds into this process's environment, once a process.

    The block's value is JSON with some of `NAMES`. It goes nowhere else: not into parameters, manifests or logs.

    Args:
        block: name of the block.

    Raises:
        ConfigError: there is no such block, or it does not hold such JSON.
    """
    from prefect.blocks.system import Secret

    try:
        secret: Any = Secret.load(block)
    except ValueError as error:
        raise ConfigError(
            "the Prefect server has no Secret block of this name",
            field=FIELD,
            value=block,
            remedy="Create it in the UI (Blocks, Secret), or leave the option away and use environment variables",
        ) from error
    value: Any = secret.get()
    wrong = sorted(set(value) - set(NAMES)) if isinstance(value, dict) else None
    if wrong is None or wrong or not value:
        raise ConfigError(
            f"holds something else than the store's credentials{f': {wrong}' if wrong else ''}",
            field=FIELD,
            value=block,
            remedy=f"Its value must be JSON with some of {', '.join(NAMES)}",
        )
    os.environ.update({name: str(text) for name, text in value.items()})
