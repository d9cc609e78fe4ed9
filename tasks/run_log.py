"""The log of a flow or task run, which the Prefect UI shows: what the stages say, not a line for each task."""

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


class _Story(logging.Filter):
    """Leaves out that a task has completed, which the UI shows anyway; other ends of a task are still told."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.getMessage() != "Finished in state Completed()"


_STORY = _Story()


def tell_the_story() -> None:
    """Keep from the log of task runs what would hide the lines of the stages; calling it again changes nothing."""
    logging.getLogger("prefect.task_runs").addFilter(_STORY)
