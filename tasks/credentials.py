"""Opening the artifact storage, with credentials from a Prefect block where the environment has none."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError

NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
)
"""What a block may hold: the environment variables that the object store's library reads."""

FIELD = "storage.credentials_block"


def open_storage(config: RoundConfig) -> Storage:
    """Return the artifact storage of a configuration, having put its credentials into this process's environment.

    Raises:
        ConfigError: the block with the credentials cannot be used.
        StorageError: the address cannot be used.
    """
    use_credentials(config.storage.credentials_block)
    return Storage(config.storage.root, config.storage.endpoint_url)


@cache
def use_credentials(block: str | None) -> None:
    """Put the content of a Secret block, if one is named, into the environment of this process, once per process.

    The block's value is JSON with some of `NAMES`. It goes nowhere else: not into parameters, manifests or logs.

    Raises:
        ConfigError: there is no such block, or it does not hold such JSON.
    """
    if block is None:
        return
    from prefect.blocks.system import Secret

    try:
        secret: Any = Secret.load(block)
    except ValueError as error:
        raise ConfigError(
            "the Prefect server has no Secret block of this name",
            field=FIELD,
            value=block,
            remedy="Create it in the UI (Blocks, Secret), or omit the option and use environment variables",
        ) from error
    value: Any = secret.get()
    wrong = sorted(set(value) - set(NAMES)) if isinstance(value, dict) else []
    if wrong or not value or not isinstance(value, dict):
        raise ConfigError(
            f"holds something other than the store's credentials{f': {wrong}' if wrong else ''}",
            field=FIELD,
            value=block,
            remedy=f"Its value must be JSON with some of {', '.join(NAMES)}",
        )
    os.environ.update({name: str(text) for name, text in value.items()})


def used_credentials(block: str | None) -> dict[str, str]:
    """Return the credentials that `use_credentials` has put into this process's environment, for another machine."""
    return {name: os.environ[name] for name in NAMES if name in os.environ} if block is not None else {}
