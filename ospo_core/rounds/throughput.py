"""How long stages take, from what they took before in this storage; no figure is made up where there is no past run."""

from __future__ import annotations

from collections.abc import Sequence

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.rounds.lineage import ancestors
from ospo_core.schema import StageName

_MODELS_COMPARED = 2


def estimate_seconds(config: RoundConfig, manifests: Sequence[Manifest]) -> dict[StageName, float]:
    """Return how long each stage of a round would take, by the mean speed of past results; unknown stages are left out.

    Stages that follow the prompts are scaled by the number of prompts, training by the sequences that it sees,
    evaluation by its pictures.

    Args:
        config: the round's configuration.
        manifests: every finished result of the storage, see `all_manifests`.
    """
    estimates: dict[StageName, float] = {}
    for stage in StageName:
        past = [(one.seconds, _work_done(one, manifests)) for one in manifests if one.stage is stage and _is_whole(one)]
        seconds, work = (sum(figures) for figures in zip(*past, strict=True)) if past else (0.0, 0.0)
        if work > 0:
            estimates[stage] = seconds / work * _work_wanted(config, stage)
    return estimates


def _is_whole(manifest: Manifest) -> bool:
    """Tell whether a result was computed as a whole, and not only some of its items."""
    return not (manifest.ingredients.get("redo") or {}).get("where")


def _work_wanted(config: RoundConfig, stage: StageName) -> float:
    """Return how much a stage has to do, in the unit of `_work_done`."""
    if stage is StageName.TRAINING:
        training = config.training
        return float(training.steps * training.batch_size * training.accumulation)
    if stage is StageName.EVALUATION:
        return float(len(load_evaluation_prompts(config.evaluation)) * config.evaluation.samples * _MODELS_COMPARED)
    return float(sum(config.prompts.quotas.values()))


def _work_done(manifest: Manifest, manifests: Sequence[Manifest]) -> float:
    """Return how much went into a past result: prompts of its round, sequences trained on, or pictures evaluated."""
    if manifest.stage is StageName.TRAINING:
        settings = manifest.ingredients["fields"]["training"]
        return float(manifest.counts["steps"] * settings["batch_size"] * settings["accumulation"])
    if manifest.stage is StageName.EVALUATION:
        return float(manifest.counts["images"])
    if manifest.stage is StageName.PROMPTS:
        return float(manifest.rows)
    prompts = next((one for one in ancestors(manifests, manifest) if one.stage is StageName.PROMPTS), None)
    return float(prompts.rows) if prompts is not None else 0.0
