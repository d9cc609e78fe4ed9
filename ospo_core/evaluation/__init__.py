"""Held-out evaluation: prompts, judges, statistics and the promotion gate.

Everything re-exported here works without torch; `ospo_core.evaluation.run`, which renders pictures, imports it.
"""

from ospo_core.evaluation.judges import JudgeQuality, judge_quality
from ospo_core.evaluation.promotion import (
    Decision,
    GroupFigures,
    decide,
    evaluation_extra,
    metric_column,
)
from ospo_core.evaluation.prompts import EvalPrompt, load_evaluation_prompts
from ospo_core.evaluation.statistics import Interval, paired_bootstrap, wilson_interval
from ospo_core.schema import CHILD, PARENT

__all__ = [
    "CHILD",
    "PARENT",
    "Decision",
    "EvalPrompt",
    "GroupFigures",
    "Interval",
    "JudgeQuality",
    "decide",
    "evaluation_extra",
    "judge_quality",
    "load_evaluation_prompts",
    "metric_column",
    "paired_bootstrap",
    "wilson_interval",
]
