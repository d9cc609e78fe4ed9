"""The log of a flow or task run, which the Prefect UI shows."""

from __future__ import annotations

import logging
from typing import cast

from prefect import get_run_logger
from prefect.exceptions import MissingContextError


def run_logger() -> logging.Logger:
    """Return the logger of the run; outside of any run an ordinary one."""
    try:
        return cast(logging.Logger, get_run_logger())
    except MissingContextError:
        return logging.getLogger("ospo")
