"""An experiment: every arm with every seed, trained by the stages of an ordinary round, then evaluated.

Arms share whatever stages their options leave alike, since all lie in one storage and are found by fingerprint.
"""

from __future__ import annotations

from prefect import flow

from flows.evaluate import evaluate
from flows.round import self_improvement_round
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import Arm, ExperimentConfig
from ospo_core.config.sections import Section
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.training import trained_model

BASE = "base"
"""Label of the model that all arms start from."""


class Measurement(Section):
    """One model, evaluated with one guidance scale.

    Args:
        arm: name of the arm, or BASE.
        seed: seed of its round.
        guidance: guidance scale.
        evaluation: manifest of the evaluation.
        training: manifest of the training; None for the base.
    """

    arm: str
    seed: int
    guidance: float
    evaluation: Manifest
    training: Manifest | None = None


@flow(flow_run_name="experiment {experiment.name}", persist_result=False)
def run_experiment(experiment: ExperimentConfig) -> list[Measurement]:
    """Run an experiment, or what of it is not cached; return all measurements.

    Args:
        experiment: what is compared.
    """
    first = experiment.arms[0]
    base = [_measure(experiment, first, experiment.seeds[0], guidance, None) for guidance in experiment.guidances]
    measured = [one.model_copy(update={"seed": seed}) for seed in experiment.seeds for one in base]
    for seed in experiment.seeds:
        for arm in experiment.arms:
            trained = self_improvement_round(experiment.arm_config(arm, seed), until=StageName.TRAINING)
            training = trained.manifests[StageName.TRAINING]
            measured += [_measure(experiment, arm, seed, guidance, training) for guidance in experiment.guidances]
    return measured


def _measure(
    experiment: ExperimentConfig, arm: Arm, seed: int, guidance: float, training: Manifest | None
) -> Measurement:
    """Evaluate an arm's trained model, or without one the model that it starts from."""
    config = experiment.arm_config(arm, seed)
    measuring = config.evaluation.model_copy(update={"guidance": guidance})
    start: ModelRef | None = trained_model(training) if training is not None else None
    manifest = evaluate(config.model_copy(update={"evaluation": measuring}), start=start)
    name = BASE if training is None else arm.name
    return Measurement(arm=name, seed=seed, guidance=guidance, evaluation=manifest, training=training)
