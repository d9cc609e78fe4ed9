"""Configuration: immutable sections, profiles of rounds, and experiments."""

from ospo_core.config.experiment import Arm, ExperimentConfig, experiment_names, load_experiment
from ospo_core.config.profile import change_config, load_profile, profile_names, profiles_dir
from ospo_core.config.sections import RoundConfig

__all__ = [
    "Arm",
    "ExperimentConfig",
    "RoundConfig",
    "change_config",
    "experiment_names",
    "load_experiment",
    "load_profile",
    "profile_names",
    "profiles_dir",
]
