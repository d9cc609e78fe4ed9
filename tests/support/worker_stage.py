"""A stage that tells about the process that computes it, and does there what its shard says; it can be pickled."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from ospo_core.config import RoundConfig
from ospo_core.errors import StageError
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage, shard_name
from ospo_core.stages.run import StageRun

VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


class UnportableError(Exception):
    """An error that cannot be unpickled, like those of many packages."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class WorkerStage(Stage):
    """Returns facts about its process in `extra`, by shard; `params["do"]` is what else it does."""

    name: ClassVar[StageName] = StageName.PROMPTS
    version: ClassVar[int] = 1
    table: ClassVar[str] = "prompts"
    phase: ClassVar[Phase] = Phase.TEXT

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        return {}

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return four shards that start an engine; at any time two of them are computed."""
        return [spec(index, "meet") for index in range(4)]

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        light = "torch" not in sys.modules
        _do(str(spec.params["do"]), spec, run)
        facts = {
            "pid": os.getpid(),
            "light": light,
            "starts": run.resources.starts["text"],
            **{name: os.environ.get(name) for name in VARIABLES},
        }
        return ShardResult(table_from_rows("prompts", []), items_in=0, extra={spec.name: facts})


def spec(index: int, do: str = "") -> ShardSpec:
    return ShardSpec(name=shard_name(index), index=index, params={"do": do})


def _do(what: str, spec: ShardSpec, run: StageRun) -> None:
    marks = run.scratch
    marks.mkdir(parents=True, exist_ok=True)
    if what == "start":
        run.text_engine()
    elif what == "meet":
        run.text_engine()
        (marks / spec.name).touch()
        _wait_for(marks, {spec.name, shard_name(spec.index ^ 1)})
    elif what == "die" or (what == "die once" and not (marks / "died").exists()):
        (marks / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "sleep":
        (marks / f"asleep-{os.getpid()}").touch()
        time.sleep(600)
    elif what == "fail":
        raise StageError("cannot work", field="somewhere", value=3, remedy="Do otherwise")
    elif what == "fail unportably":
        raise UnportableError("two", "words")
    elif what == "warn":
        logging.getLogger("ospo_core.somewhere").warning("mind %s", Path("the/gap"))


def _wait_for(folder: Path, names: set[str]) -> None:
    end = time.monotonic() + 120
    while not names <= {path.name for path in folder.iterdir()}:
        if time.monotonic() > end:
            raise TimeoutError(f"{names} not seen")
        time.sleep(0.01)
