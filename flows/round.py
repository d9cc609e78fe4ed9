"""One round of self-improvement: prompts to promotion (design, "In one picture")."""

from __future__ import annotations

from prefect import flow

from flows.runners import LOCAL
from flows.steps import run_stage
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.model_pointer import Promotion
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.redo import RedoRequest
from ospo_core.stages.resources import shared_resources
from ospo_core.stages.training import trained_model
from tasks.jobs import StageJob, untouched
from tasks.round_tasks import apply_decision, open_round, report

PHASE_ENDS = {StageName.QUESTIONS, StageName.PAIRS, StageName.EVALUATION}
"""Stages after which the text engine or the loaded model is given back."""


class RoundResult(Section):
    """Outcome of a round.

    Args:
        model: the model that it started from.
        manifests: of the stages that are done.
        ran: stages that were computed now; the others were cached.
        promotion: what became of the trained model; None where the round ended before evaluation.
        report: address of the HTML report; empty where the round ended before evaluation.
    """

    model: ModelRef
    manifests: dict[StageName, Manifest]
    ran: tuple[StageName, ...] = ()
    promotion: Promotion | None = None
    report: str = ""

    @property
    def next_model(self) -> ModelRef:
        """The model that the next round starts from: the trained one if the gate let it through."""
        evaluation = self.manifests.get(StageName.EVALUATION)
        if evaluation is None or not evaluation.extra["decision"]["promote"]:
            return self.model
        return trained_model(self.manifests[StageName.TRAINING])


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
        refresh: stages to compute anew.
        until: last stage to run; by default all of them.
        start: the model to start from; by default the one that `config.model.path` names.

    Raises:
        OspoError: what is wrong with the configuration, the storage, the model or a stage's outcome.
    """
    opened = open_round(config, start)
    model = opened.model
    manifests: dict[StageName, Manifest] = {}
    ran: list[StageName] = []
    try:
        for name in STAGES:
            job = StageJob(config=config, stage=name, model=model, upstream=dict(manifests), round=opened.id)
            manifests[name], computed = run_stage(job, RedoRequest() if refresh and name in refresh else None)
            ran += [name] if computed else []
            if name in PHASE_ENDS:
                shared_resources().give_back()
            if name is until:
                break
    finally:
        shared_resources().give_back()
    if StageName.EVALUATION not in manifests:
        return RoundResult(model=model, manifests=manifests, ran=tuple(ran))
    promotion = apply_decision(config, untouched(manifests))
    address = report(config, untouched(manifests), ran)
    return RoundResult(model=model, manifests=manifests, ran=tuple(ran), promotion=promotion, report=address)
