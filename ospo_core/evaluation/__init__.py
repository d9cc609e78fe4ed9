"""Held-out evaluation: prompts, judges, statistics and the promotion gate.

Everything re-exported here is pure (no torch). Drawing is in `ospo_core.evaluation.run`, which loads torch.
"""

from ospo_core.evaluation.judge_quality import JudgeQuality, judge_quality
from ospo_core.evaluation.promotion import (
    CHILD,
    PARENT,
    Decision,
    GroupFigures,
    decide,
    evaluation_extra,
    metric_column,
)
from ospo_core.evaluation.prompts import EvalPrompt, load_evaluation_prompts
from ospo_core.evaluation.statistics import Interval, paired_bootstrap, wilson_interval

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
