"""Try hostile inputs for some minutes, and show the smallest one that is not answered as promised.

    python -m tests.manual.fuzz --minutes 5 --area configurations

The areas are those of tests/support/fuzz_areas.py. Each input must give a value, or one message with exit code 1 or 2
that shows no secret; never another exception, and never a file in a wrong place. The exit code is 1 if one does not.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.support.fuzz_areas import AREAS
from tests.support.fuzzing import Area

EXAMPLES = 500
"""Inputs of one seed; between two seeds the clock is looked at."""


def main(
    minutes: Annotated[float, typer.Option(min=0, help="Minutes per area; at least one seed is tried.")] = 5.0,
    area: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(AREAS)}; repeatable. Default: all.")] = None,
    first: Annotated[int | None, typer.Option("--seed", help="First seed; the next ones follow.")] = None,
) -> None:
    """Fuzz the areas one after the other and report what was found."""
    names = area or list(AREAS)
    if unknown := set(names) - set(AREAS):
        raise typer.BadParameter(f"no such area: {', '.join(sorted(unknown))}")
    logging.disable()  # warnings about the inputs would hide what is found
    begin = random.randrange(10**6) if first is None else first
    found = [name for name in names if not _holds(name, begin, 60 * minutes)]
    say(f"broken: {', '.join(found)}" if found else "all held")
    raise typer.Exit(1 if found else 0)


def _holds(name: str, begin: int, seconds: float) -> bool:
    """Try seeds of one area until the time is over; return whether every input was answered as promised."""
    until, number = time.monotonic() + seconds, begin
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        area = AREAS[name](Path(folder) / "area")
        with area.opened():
            while number == begin or time.monotonic() < until:
                problem = _tried(area, number)
                if problem:
                    say(f"{name}: seed {number} found\n{problem}")
                    return False
                number += 1
    say(f"{name}: {number - begin} seeds from {begin} on, {EXAMPLES} inputs each")
    return True


def _tried(area: Area, number: int) -> str:
    """Return what is wrong with the smallest input of a seed that breaks the promise, empty if none does."""

    @seed(number)
    @settings(
        database=None,
        deadline=None,
        max_examples=EXAMPLES,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(area.inputs())
    def check(one: Any) -> None:
        area.check(one)

    try:
        check()
    except Exception:  # whatever the project raises is what is looked for
        return traceback.format_exc()
    return ""


def say(line: str) -> None:
    """Write one line and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
