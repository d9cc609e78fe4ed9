"""One round of self-improvement, from prompts to promotion (docs/architecture.md)."""

from __future__ import annotations

from prefect import flow

from flows.steps import LOCAL, run_step
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.evaluation.people_gate import WAITING, awaits_people
from ospo_core.rounds.preflight import is_due
from ospo_core.schema import StageName
from ospo_core.stages import ends_phase
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.model_ref import ModelRef, Promotion, trained_model
from tasks.round_tasks import apply_decision, check_first, count_answers, open_round, report
from tasks.task_options import opaque


class RoundResult(Section):
    """Result of a round.

    Args:
        model: the model that it started from.
        manifests: of the finished stages.
        ran: stages that were computed now; the others were cached.
        promotion: effect of the decision on the current model; None if the round ended before evaluation.
        report: address of the HTML report; empty if the round ended before evaluation.
    """

    model: ModelRef
    manifests: dict[StageName, Manifest]
    ran: tuple[StageName, ...] = ()
    promotion: Promotion | None = None
    report: str = ""

    @property
    def next_model(self) -> ModelRef:
        """The model that the next round starts from: the trained one if it passed the gate."""
        evaluation = self.manifests.get(StageName.EVALUATION)
        if evaluation is None or not evaluation.extra["decision"]["promote"]:
            return self.model
        return trained_model(self.manifests[StageName.TRAINING])

    @property
    def waiting(self) -> bool:
        """Whether the decision waits for answers of people."""
        evaluation = self.manifests.get(StageName.EVALUATION)
        return evaluation is not None and bool(evaluation.extra["decision"].get(WAITING))


@flow(flow_run_name="{config.name}, seed {config.seed}", task_runner=LOCAL, persist_result=False)
def self_improvement_round(
    config: RoundConfig,
    refresh: list[StageName] | None = None,
    until: StageName | None = None,
    start: ModelRef | None = None,
) -> RoundResult:
    """Run the stages of a round that are not cached, apply the gate's decision, write the report.

    Args:
        config: the round's configuration.
        refresh: stages to recompute.
        until: last stage to run; by default all of them.
        start: the model to start from; by default the one that `config.model.path` names.

    Raises:
        OspoError: what is wrong with the configuration, the storage, the model or the result of a stage.
    """
    round = open_round(config, start)
    for name in [*(refresh or ()), *([until] if until is not None else [])]:
        round.stage(name)
    manifests: dict[StageName, Manifest] = {}
    ran: list[StageName] = []
    try:
        if until is None and is_due(round):
            check_first(opaque(round))
        for name, stage in round.stages.items():
            manifests[name], computed = run_step(round, name, manifests, Attempt() if name in (refresh or ()) else None)
            ran += [name] if computed else []
            if ends_phase(stage):
                round.resources.release()
            if name is until:
                break
    finally:
        round.resources.release()
    if StageName.EVALUATION not in manifests:
        return RoundResult(model=round.model, manifests=manifests, ran=tuple(ran))
    if awaits_people(manifests[StageName.EVALUATION]):
        manifests = count_answers(config, opaque(manifests))
    promotion = apply_decision(config, opaque(manifests))
    address = report(config, opaque(manifests), ran)
    return RoundResult(model=round.model, manifests=manifests, ran=tuple(ran), promotion=promotion, report=address)
