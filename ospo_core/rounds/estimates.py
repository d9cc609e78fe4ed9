"""What a round costs before it runs: calls, tokens, pictures, bytes, and seconds on one device.

The amounts follow from the configuration. Speeds are those of past results in the storage; where there are none, those
that the profile states (section `speeds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.config.bounds import Positive
from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError
from ospo_core.evaluation.benchmarks.prompts import load_benchmark
from ospo_core.evaluation.benchmarks.protocol import protocol_of
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.prompts.writing import OVERSAMPLING
from ospo_core.rounds.lineage import ancestors
from ospo_core.schema import PERTURBATIONS, StageName
from ospo_core.stages.benchmark_gate import is_gate

QUESTIONS_PER_PROMPT = 6
"""Questions about one prompt; an assumption: two objects with an attribute each, a number, a relation."""
ANSWER_TOKENS = {"prompt": 60, "perturbation": 30, "dense": 160, "question": 10}
"""Tokens per answer, `question` being one question of many; assumptions, not counted on a real model's answers."""
CANDIDATES = 0.3
"""Share of the images that could be chosen, so that more is asked about them: 1214 of 3880 in the embedded round."""
PAIRS = 0.65
"""Pairs per prompt in the paper: 10 430 of 16 001."""
TOKEN_BYTES = 2
ROW_BYTES = 500
"""A row's texts, numbers and file overhead, compressed."""


class _Batches(BaseModel):
    """What the settings of a past training say about the size of its steps."""

    batch_size: Positive
    accumulation: Positive


class Work(Section):
    """What a stage has to do; amounts are expectations, except pictures and pairs trained on.

    Args:
        tokens: text tokens to generate.
        images: pictures to sample.
        questions: questions to answer about pictures.
        sequences: log-probabilities of pictures under a prompt.
        pairs: pairs trained on, each as often as it is used.
        bytes: size of the result in the storage.
    """

    tokens: int = 0
    images: int = 0
    questions: int = 0
    sequences: int = 0
    pairs: int = 0
    bytes: int = 0


def expected_work(config: RoundConfig) -> dict[StageName, Work]:
    """Return the work of every stage of a round from nothing; `evaluation` counts parent and child.

    If a benchmark is the gate, its pictures count like held-out ones, those of the parent too.

    Held-out prompts that are not there yet count as `evaluation.limit`.
    """
    prompts = sum(config.prompts.quotas.values())
    variants = sum(quota * len(PERTURBATIONS[name]) for name, quota in config.prompts.quotas.items())
    images = 2 * variants
    per_variant = ANSWER_TOKENS["perturbation"] + config.perturbations.densify * ANSWER_TOKENS["dense"]
    questions = QUESTIONS_PER_PROMPT * (prompts + variants)
    negatives = CANDIDATES * images * QUESTIONS_PER_PROMPT * variants / prompts if prompts else 0
    texts_per_image = 1 + CANDIDATES * variants / prompts if prompts else 1
    pairs = PAIRS * prompts
    picture = config.speeds.picture_bytes or 0
    training = config.training
    held_out = _held_out(config) * config.evaluation.samples * 2 + _gate_pictures(config)
    return {
        StageName.PROMPTS: Work(
            tokens=round(prompts * OVERSAMPLING * ANSWER_TOKENS["prompt"]), bytes=prompts * ROW_BYTES
        ),
        StageName.PERTURBATIONS: Work(tokens=variants * per_variant, bytes=variants * 2 * ROW_BYTES),
        StageName.QUESTIONS: Work(tokens=questions * ANSWER_TOKENS["question"], bytes=(prompts + variants) * ROW_BYTES),
        StageName.IMAGES: Work(images=images, bytes=images * (picture + ROW_BYTES)),
        StageName.SCORES: Work(
            questions=round(QUESTIONS_PER_PROMPT * images + negatives),
            sequences=round(images * texts_per_image),
            bytes=images * ROW_BYTES,
        ),
        StageName.PAIRS: Work(bytes=round(pairs * 2 * (picture + ROW_BYTES))),
        StageName.TRAINING: Work(pairs=training.steps * training.batch_size * training.accumulation),
        StageName.EVALUATION: Work(
            images=held_out,
            questions=held_out * QUESTIONS_PER_PROMPT,
            bytes=2 * held_out * (picture + ROW_BYTES),  # drawn, and judged
        ),
    }


def expected_seconds(
    config: RoundConfig, work: Mapping[StageName, Work], manifests: Sequence[Manifest]
) -> dict[StageName, float]:
    """Return how long each stage takes on one device; one whose speed is neither measured nor stated is omitted.

    Past results of the storage count by their mean speed: stages that follow the prompts scale with the number of
    prompts, training with the pairs it sees, evaluation with its pictures.

    Args:
        config: the round's configuration.
        work: what `expected_work` returns.
        manifests: every finished result of the storage, see `all_manifests`.
    """
    prompts = sum(config.prompts.quotas.values())
    wanted = {
        StageName.TRAINING: work[StageName.TRAINING].pairs,
        StageName.EVALUATION: work[StageName.EVALUATION].images,
    }
    found: dict[StageName, float] = {}
    for stage in StageName:
        past = [one for one in manifests if one.stage is stage and _is_whole(one)]
        done = sum(_work_done(one, manifests) for one in past)
        stated = _stated_seconds(config, work[stage])
        if done > 0:
            found[stage] = sum(one.seconds for one in past) / done * wanted.get(stage, prompts)
        elif stated is not None:
            found[stage] = stated
    return found


def _is_whole(manifest: Manifest) -> bool:
    """Return whether a past result is that of a whole stage of a round, not of chosen items or of a benchmark."""
    chosen = (manifest.ingredients.get("redo") or {}).get("where")
    return not chosen and "benchmark" not in (manifest.ingredients.get("fields") or {})


def _held_out(config: RoundConfig) -> int:
    try:
        return len(load_evaluation_prompts(config.evaluation))
    except ConfigError:
        return config.evaluation.limit


def _gate_pictures(config: RoundConfig) -> int:
    """Return the number of pictures of parent and child on the benchmark that is the gate; 0 where none is."""
    if not is_gate(config):
        return 0
    prompts = load_benchmark(config.benchmark, config.evaluation)
    return 2 * len(prompts) * protocol_of(config.benchmark, config.evaluation).samples


def _stated_seconds(config: RoundConfig, work: Work) -> float | None:
    """Return the seconds that a stage takes at the profile's speeds; None if it does not state one that is needed."""
    seconds = 0.0
    speeds = config.speeds.model_dump()
    for kind in ("tokens", "images", "questions", "sequences", "pairs"):
        amount, speed = getattr(work, kind), speeds[kind]
        if amount and not speed:
            return None
        seconds += amount / speed if amount else 0.0
    return seconds if seconds or any(speeds.values()) else None


def _work_done(manifest: Manifest, manifests: Sequence[Manifest]) -> float:
    """Return the work behind a past result: prompts of its round, pairs trained on, or pictures evaluated.

    It is 0 where the result does not say it.
    """
    if manifest.stage is StageName.TRAINING:
        return manifest.counts.get("steps", 0.0) * _pairs_per_step(manifest)
    if manifest.stage is StageName.EVALUATION:
        return manifest.counts.get("images", 0.0)
    if manifest.stage is StageName.PROMPTS:
        return float(manifest.rows)
    prompts = next((one for one in ancestors(manifests, manifest) if one.stage is StageName.PROMPTS), None)
    return float(prompts.rows) if prompts is not None else 0.0


def _pairs_per_step(training: Manifest) -> int:
    """Return the pairs of one step of a past training, 0 if its settings do not say it."""
    settings = (training.ingredients.get("fields") or {}).get("training")
    try:
        known = _Batches.model_validate(settings)
    except ValidationError:
        return 0
    return known.batch_size * known.accumulation
