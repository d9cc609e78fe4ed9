"""The flow of an experiment: the base once, arms and seeds in order, rounds that build on each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import experiment as flow
from flows.experiment import BASE, run_experiment
from flows.round import RoundResult
from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import Arm, ExperimentConfig, RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from tests.support.rounds import small_round

BASE_MODEL = "0" * 64


@pytest.fixture(autouse=True)
def server(prefect_server: str) -> Iterator[None]:
    yield


def manifest(stage: StageName, **extra: Any) -> Manifest:
    return Manifest(stage=stage, fingerprint="f" * 64, version=1, rows=0, items_in=0, extra=extra)


class Recorded:
    """Stands for the two flows below: a training is named after what it was trained from and with which seed."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.names = {BASE_MODEL: "m"}  # by digest
        self.evaluated: list[tuple[str, float]] = []

    def round(self, config: RoundConfig, until: StageName, start: ModelRef | None) -> RoundResult:
        assert until is StageName.TRAINING
        parent = start.digest if start else BASE_MODEL
        name = f"{self.names[parent]}>{config.name}{config.seed}"
        self.trained.append(name)
        self.names[digest_of(name)] = name
        facts = {"model_digest": digest_of(name), "merged": f"models/{digest_of(name)}", "parent_digest": parent}
        training = manifest(StageName.TRAINING, **facts)
        return RoundResult(model=ModelRef(digest=BASE_MODEL, source="s"), manifests={StageName.TRAINING: training})

    def evaluate(self, config: RoundConfig, start: ModelRef | None = None) -> Manifest:
        self.evaluated.append((self.names[start.digest] if start else "m", config.evaluation.guidance))
        return manifest(StageName.EVALUATION)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    made = Recorded()
    monkeypatch.setattr(flow, "self_improvement_round", made.round)
    monkeypatch.setattr(flow, "evaluate", made.evaluate)
    return made


def an_experiment(root: Path, arms: tuple[str, ...], **options: Any) -> ExperimentConfig:
    configs = tuple(Arm(name=arm, title=arm, config=small_round(root, name=arm)) for arm in arms)
    return ExperimentConfig(name="small", title="Small", arms=configs, **options)


def test_every_arm_is_trained_with_every_seed_and_the_base_is_evaluated_once(
    tmp_path: Path, recorded: Recorded
) -> None:
    measured = run_experiment(an_experiment(tmp_path, ("a", "b"), seeds=(0, 5), guidances=(1.0, 2.0)))
    assert recorded.trained == ["m>a0", "m>b0", "m>a5", "m>b5"]
    assert recorded.evaluated[:2] == [("m", 1.0), ("m", 2.0)] and len(recorded.evaluated) == 2 + 4 * 2
    keys = [(one.arm, one.seed, one.guidance) for one in measured]
    assert keys[:4] == [(BASE, 0, 1.0), (BASE, 0, 2.0), (BASE, 5, 1.0), (BASE, 5, 2.0)]
    assert keys[4:] == [(arm, seed, scale) for seed in (0, 5) for arm in ("a", "b") for scale in (1.0, 2.0)]
    assert all((one.training is None) == (one.arm == BASE) for one in measured)


def test_each_round_starts_from_the_model_that_the_last_one_trained(tmp_path: Path, recorded: Recorded) -> None:
    measured = run_experiment(an_experiment(tmp_path, ("a",), seeds=(1,), guidances=(1.0,), rounds=3))
    assert recorded.trained == ["m>a1", "m>a1>a1001", "m>a1>a1001>a2001"]
    assert [one.arm for one in measured] == [BASE, "a-round-1", "a-round-2", "a-round-3"]
    assert {one.seed for one in measured} == {1}
