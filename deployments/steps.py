"""Build steps of `prefect.yaml`: what `prefect deploy` fills into a deployment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from ospo_core.config import load_profile
from ospo_core.config.text_files import local_path


def profile(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return a profile's whole configuration as `config`, and as `home` the folder in which workers run.

    Args:
        name: name of a shipped profile, or path of a YAML file.
        overrides: changes to it, `section.option=value`.

    Raises:
        ConfigError: there is no such profile, or one of its options is unknown or invalid.
    """
    home = local_path(os.environ.get("OSPO_HOME") or ".", "OSPO_HOME").absolute()
    return {"config": load_profile(name, overrides).model_dump(mode="json"), "home": str(home)}


def schedule(deployment: str, slug: str) -> dict[str, Any]:
    """Return whether a schedule is `active`: as it was set on the server; a new one is not.

    Args:
        deployment: `flow/deployment`.
        slug: of the schedule.
    """
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            return {"active": False}
    return {"active": any(one.active for one in found if one.slug == slug)}
