"""An experiment: every arm with every seed, trained by the stages of an ordinary round, then evaluated.

Arms share the stages that their options do not change, since all results lie in one storage, by fingerprint.
"""

from __future__ import annotations

from prefect import flow

from flows.evaluate import evaluate
from flows.round import self_improvement_round
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import Arm, ExperimentConfig, RoundConfig
from ospo_core.config.sections import Section
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef, trained_model
from tasks.prefect_ui import tag_run

BASE = "base"
"""Label of the model that all arms start from."""


class Measurement(Section):
    """One model, evaluated with one guidance scale.

    Args:
        arm: `ExperimentConfig.label` of an arm's round, or BASE.
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
    """Run what is not cached of an experiment, and return all measurements."""
    tag_run("ospo", "experiment", experiment.name)
    base = _measure(experiment, BASE, experiment.arms[0].config, experiment.seeds[0], None)
    measured = [one.model_copy(update={"seed": seed}) for seed in experiment.seeds for one in base]
    for seed in experiment.seeds:
        for arm in experiment.arms:
            measured += _run_arm(experiment, arm, seed)
    return measured


def _run_arm(experiment: ExperimentConfig, arm: Arm, seed: int) -> list[Measurement]:
    """Train an arm's rounds in sequence, regardless of the promotion gate, and evaluate each."""
    measured: list[Measurement] = []
    start: ModelRef | None = None
    for number in range(experiment.rounds):
        config = experiment.arm_config(arm, seed, number)
        training = self_improvement_round(config, until=StageName.TRAINING, start=start).manifests[StageName.TRAINING]
        start = trained_model(training)
        measured += _measure(experiment, experiment.label(arm, number), config, seed, training)
    return measured


def _measure(
    experiment: ExperimentConfig, label: str, config: RoundConfig, seed: int, training: Manifest | None
) -> list[Measurement]:
    """Evaluate a trained model at every guidance scale; without `training`, the model that all arms start from."""
    start = trained_model(training) if training is not None else None
    measured: list[Measurement] = []
    for guidance in experiment.guidances:
        section = config.evaluation.model_copy(update={"guidance": guidance})
        manifest = evaluate(config.model_copy(update={"evaluation": section}), start=start)
        measured.append(Measurement(arm=label, seed=seed, guidance=guidance, evaluation=manifest, training=training))
    return measured
