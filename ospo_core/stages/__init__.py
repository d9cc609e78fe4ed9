"""The registry of stages: each stage is `STAGE` of the module that is named after it."""

from importlib import import_module

from ospo_core.schema import StageName
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage
from ospo_core.stages.run import StageRun, run_stage

__all__ = ["STAGES", "Phase", "ShardResult", "ShardSpec", "Stage", "StageRun", "ends_phase", "run_stage"]


STAGES: dict[StageName, Stage] = {name: import_module(f"{__name__}.{name}").STAGE for name in StageName}
"""Stage by name, in the order in which they run, which is that of `StageName`."""


def ends_phase(stage: Stage) -> bool:
    """Return whether no later stage can use what this one holds: the next one is of another phase, or there is none."""
    later = list(STAGES.values())[list(STAGES).index(stage.name) + 1 :]
    return not later or later[0].phase is not stage.phase
