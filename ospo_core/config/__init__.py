"""Configuration: frozen sections, and the profile that puts them together."""

from ospo_core.config.experiment import Arm, ExperimentConfig, experiment_names, load_experiment
from ospo_core.config.profile import RoundConfig, load_profile, profile_names, profiles_dir
from ospo_core.config.sections import (
    EngineConfig,
    EvaluationConfig,
    ExecutionConfig,
    ImagesConfig,
    LoraSettings,
    LossConfig,
    ModelConfig,
    PerturbationsConfig,
    PromotionConfig,
    PromptsConfig,
    QuestionsConfig,
    ScoresConfig,
    Section,
    SelectionConfig,
    StorageConfig,
    TrainingConfig,
)

__all__ = [
    "Arm",
    "EngineConfig",
    "EvaluationConfig",
    "ExecutionConfig",
    "ExperimentConfig",
    "ImagesConfig",
    "LoraSettings",
    "LossConfig",
    "ModelConfig",
    "PerturbationsConfig",
    "PromotionConfig",
    "PromptsConfig",
    "QuestionsConfig",
    "RoundConfig",
    "ScoresConfig",
    "Section",
    "SelectionConfig",
    "StorageConfig",
    "TrainingConfig",
    "experiment_names",
    "load_experiment",
    "load_profile",
    "profile_names",
    "profiles_dir",
]
