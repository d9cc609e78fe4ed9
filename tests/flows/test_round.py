"""The flow of a round: order, phases, the end of a partial round, and rounds that build on each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import improve, round
from flows.improve import self_improve
from flows.round import RoundResult, self_improvement_round
from ospo_core.artifacts.manifest import Manifest
from ospo_core.errors import ModelError, StageError
from ospo_core.rounds import Round, preflight
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.resources import Resources
from tests.support.fake_stages import NumbersStage, SquaresStage
from tests.support.rounds import model_files, small_round


@pytest.fixture(autouse=True)
def server(prefect_server: str) -> Iterator[None]:
    yield


def manifest_of(stage: StageName, extra: dict[str, Any]) -> Manifest:
    return Manifest(stage=stage, fingerprint="f" * 64, version=1, rows=0, items_in=0, extra=extra)


def finished(promote: bool, parent: str, child: str, **decision: bool) -> RoundResult:
    facts = {"model_digest": child, "merged": f"models/{child}", "parent_digest": parent}
    training = manifest_of(StageName.TRAINING, facts)
    evaluation = manifest_of(StageName.EVALUATION, {"decision": {"promote": promote, **decision}})
    manifests = {StageName.TRAINING: training, StageName.EVALUATION: evaluation}
    return RoundResult(model=ModelRef(digest=parent, source="embedded:shapes"), manifests=manifests)


def test_partial_round_ends_after_the_stage_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, StageName.PROMPTS, NumbersStage())
    monkeypatch.setitem(STAGES, StageName.PERTURBATIONS, SquaresStage())
    model_files(tmp_path / "model")
    result = self_improvement_round(small_round(tmp_path), until=StageName.PERTURBATIONS)
    assert list(result.manifests) == list(result.ran) == [StageName.PROMPTS, StageName.PERTURBATIONS]
    assert result.promotion is None and result.report == "" and result.next_model == result.model
    again = self_improvement_round(small_round(tmp_path), until=StageName.PERTURBATIONS)
    assert again.ran == () and again.manifests == result.manifests


def test_engine_is_released_after_each_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def record(one: Round, name: StageName, *others: object) -> tuple[Manifest, bool]:
        happened.append(name.value)
        return manifest_of(name, {"decision": {"promote": False}}), False

    monkeypatch.setattr(Resources, "release", lambda self: happened.append("released"))
    monkeypatch.setattr(round, "run_step", record)
    monkeypatch.setattr(round, "apply_decision", lambda config, manifests: None)
    monkeypatch.setattr(round, "report", lambda config, manifests, ran: "address")
    model_files(tmp_path / "model")
    result = self_improvement_round(small_round(tmp_path))
    assert result.report == "address"
    text, images = happened.index("questions"), happened.index("pairs")
    assert happened[text + 1] == happened[images + 1] == "released" == happened[-1]
    assert [name for name in happened if name != "released"] == [name.value for name in StageName]


def test_a_failed_check_ends_a_new_round_before_any_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers_with_a_wrong_type(one: Round) -> str:
        raise TypeError("this version of a library cannot answer")

    monkeypatch.setitem(STAGES, StageName.PROMPTS, NumbersStage())
    for name in list(preflight.CHECKS):
        monkeypatch.setitem(preflight.CHECKS, name, answers_with_a_wrong_type)
    model_files(tmp_path / "model")
    config = small_round(tmp_path)
    eager = config.model_copy(update={"execution": config.execution.model_copy(update={"preflight": True})})
    with pytest.raises(StageError, match=r"pre-flight check: packages.*TypeError: this version of a library"):
        self_improvement_round(eager)
    assert not (Path(eager.storage.root) / "prompts").exists()


def test_missing_model_ends_the_round_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        self_improvement_round(small_round(tmp_path))


def test_next_round_starts_from_the_child_only_if_the_gate_lets_it_through() -> None:
    parent, child = "a" * 64, "b" * 64
    assert finished(True, parent, child).next_model == ModelRef(digest=child, source=f"stored:models/{child}")
    assert finished(False, parent, child).next_model.digest == parent


def test_rounds_differ_in_seed_and_build_on_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []

    def one_round(config: Any, refresh: Any = None, start: ModelRef | None = None) -> RoundResult:
        number = len(seen)
        seen.append((config.seed, start.digest if start else "configured"))
        return finished(number == 0, start.digest if start else "0" * 64, str(number + 1) * 64)

    monkeypatch.setattr(improve, "self_improvement_round", one_round)
    results = self_improve(small_round(tmp_path, seed=10), rounds=3)
    assert seen == [(10, "configured"), (11, "1" * 64), (12, "1" * 64)]
    assert [result.next_model.digest for result in results] == ["1" * 64] * 3


def test_a_round_that_waits_for_people_ends_the_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        improve, "self_improvement_round", lambda *_, **__: finished(False, "a" * 64, "b" * 64, waiting=True)
    )
    assert len(self_improve(small_round(tmp_path), rounds=3)) == 1


def test_a_round_that_people_decide_counts_their_answers_before_it_promotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    waiting = {"people": {"prompts": 1}, "decision": {"promote": False, "waiting": True}}

    def answered(config: Any, manifests: Any) -> dict[StageName, Manifest]:
        return {StageName.EVALUATION: manifest_of(StageName.EVALUATION, {"decision": {"promote": True}})}

    def applied(config: Any, manifests: Any) -> None:
        plain = getattr(manifests, "value", manifests)
        seen.append(plain[StageName.EVALUATION].extra["decision"]["promote"])

    monkeypatch.setattr(round, "run_step", lambda one, name, *others: (manifest_of(name, waiting), False))
    monkeypatch.setattr(round, "count_answers", answered)
    monkeypatch.setattr(round, "apply_decision", applied)
    monkeypatch.setattr(round, "report", lambda config, manifests, ran: "address")
    model_files(tmp_path / "model")
    result = self_improvement_round(small_round(tmp_path))
    assert seen == [True] and not result.waiting
