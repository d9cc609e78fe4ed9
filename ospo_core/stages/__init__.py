"""The stages of a round: each a pure function with an identity, and the registry of them all, in running order."""

from ospo_core.schema import StageName
from ospo_core.stages.base import Outcome, ShardResult, ShardSpec, Stage, StageContext
from ospo_core.stages.evaluation import EvaluationStage, ModelEvaluationStage
from ospo_core.stages.images import ImagesStage
from ospo_core.stages.pairs import PairsStage
from ospo_core.stages.perturbations import PerturbationsStage
from ospo_core.stages.prompts import PromptsStage
from ospo_core.stages.questions import QuestionsStage
from ospo_core.stages.scores import ScoresStage
from ospo_core.stages.training import TrainingStage

__all__ = [
    "MODEL_EVALUATION",
    "STAGES",
    "Outcome",
    "ShardResult",
    "ShardSpec",
    "Stage",
    "StageContext",
]

STAGES: dict[StageName, Stage] = {
    stage.name: stage
    for stage in (
        PromptsStage(),
        PerturbationsStage(),
        QuestionsStage(),
        ImagesStage(),
        ScoresStage(),
        PairsStage(),
        TrainingStage(),
        EvaluationStage(),
    )
}
"""Stage name to stage, in the order in which they run."""

MODEL_EVALUATION: Stage = ModelEvaluationStage()
"""Evaluation of one model by itself, outside a round."""
