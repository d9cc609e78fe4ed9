"""The state of a round: which stages are cached, which would run, and which are out of date."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.artifacts.tables import read_shard
from ospo_core.config.sections import Section
from ospo_core.errors import DamagedArtifactError, StageError
from ospo_core.evaluation.people_gate import WAITING, awaits_people, decided_by_people
from ospo_core.rounds.lineage import promotes
from ospo_core.rounds.records import read_record, stage_records
from ospo_core.rounds.round import Round
from ospo_core.schema import CHILD, PARENT, StageName
from ospo_core.stages import StageRun
from ospo_core.stages.benchmark_gate import gate_name
from ospo_core.stages.model_ref import ModelPointer, Promotion, current_model, promote, trained
from ospo_core.stages.partial import chosen_items
from ospo_core.stages.run import find

Status = Literal["cached", "run", "waits", "damaged"]
Standing = Literal["up to date", "out of date", "not done yet"]


class StagePlan(Section):
    """What a round would do with one stage.

    Args:
        stage: which.
        status: `cached`; `run`; `waits` for an earlier stage, so that its fingerprint is not known yet; `damaged`.
        fingerprint: identity of the result, empty if not known yet.
        shards_done: number of shards that an interrupted run has published.
        rows: number of rows of a cached result.
        note: why it is damaged, that a refresh was requested, which attempt counts, or how far the benchmark is that
            is the gate.
    """

    stage: StageName
    status: Status
    fingerprint: str = ""
    shards_done: int = 0
    rows: int = 0
    note: str = ""


def plan_round(round: Round, refresh: Collection[StageName] = ()) -> tuple[list[StagePlan], dict[StageName, Manifest]]:
    """Return the plan of a round and the manifests of its cached stages; nothing is computed, no shard is read."""
    plans: list[StagePlan] = []
    manifests: dict[StageName, Manifest] = {}
    for name, stage in round.stages.items():
        gate, measured = _gate(round, manifests) if round.is_gated and name is StageName.EVALUATION else ("", True)
        if any(needed not in manifests for needed in stage.reads):
            plans.append(StagePlan(stage=name, status="waits", note=gate))
            continue
        if not measured:
            plans.append(StagePlan(stage=name, status="run", note=gate))
            continue
        plan, manifest = _plan_stage(round.bind(name, manifests), name in refresh)
        plans.append(plan.model_copy(update={"note": ", ".join(word for word in (gate, plan.note) if word)}))
        if manifest is not None:
            manifests[name] = manifest
    return plans, manifests


@dataclass(frozen=True)
class FinishedRound:
    """A round, or its first stages, of which nothing is left to do.

    Args:
        manifests: of the stages, verified.
        promotion: effect that the decision had; None without evaluation.
        report: address of the report; empty without evaluation.
    """

    manifests: dict[StageName, Manifest]
    promotion: Promotion | None
    report: str


def finished_round(round: Round, until: StageName | None = None) -> FinishedRound | None:
    """Return a round if its stages up to `until` are cached, its decision is applied and its report is written.

    Else return None: running it would change something.

    Raises:
        DamagedArtifactError: a result is not what was published.
        ConfigError: the round has no stage `until`.
    """
    if until is not None:
        round.stage(until)
    try:
        recorded = replace(round, model=read_record(round.storage, round.id).model)
    except MissingObjectError:
        return None
    names = list(recorded.stages)
    wanted = names[: names.index(until) + 1] if until in names else names
    planned = plan_round(recorded)[1]
    if any(name not in planned for name in wanted):
        return None
    manifests = {name: planned[name] for name in wanted}
    promotion, report = None, ""
    if StageName.EVALUATION in manifests and awaits_people(manifests[StageName.EVALUATION]):
        return None  # their answers may have changed what the report says
    if StageName.EVALUATION in manifests:
        report, promotion = round.storage.uri(report_key(manifests)), applied_promotion(round.storage, manifests)
        if promotion is None or not round.storage.exists(report_key(manifests)):
            return None
    for name in wanted:
        if find(recorded.bind(name, manifests)) is None:  # the files are read and compared here only
            return None
    return FinishedRound(manifests, promotion, report)


def with_answers(
    storage: Storage, manifests: Mapping[StageName, Manifest], wanted: int | None = None
) -> dict[StageName, Manifest]:
    """Return the manifests of a round with the decision of people, if they decide; see `decided_by_people`."""
    return {name: decided_by_people(storage, manifest, wanted) for name, manifest in manifests.items()}


def apply_decision(storage: Storage, manifests: Mapping[StageName, Manifest]) -> Promotion:
    """Make the child the current model if the gate decided so; a refused child is kept, with the reason."""
    evaluation = manifests[StageName.EVALUATION]
    if not promotes(evaluation):
        waits = evaluation.extra["decision"].get(WAITING)
        why = "people have not decided yet" if waits else "the gate refused the trained model"
        return Promotion(changed=False, reason=why)
    return promote(storage, _child(manifests))


def applied_promotion(storage: Storage, manifests: Mapping[StageName, Manifest]) -> Promotion | None:
    """Return the effect of a decision that was applied; None if applying it would change the current model."""
    current = current_model(storage)
    accepted = promotes(manifests[StageName.EVALUATION])
    if accepted and (current is None or current.digest == _child(manifests).parent):
        return None
    return apply_decision(storage, manifests)


def standings(round: Round) -> dict[StageName, Standing]:
    """Return the standing of every stage of a round; nothing is computed, no shard is read.

    A stage is out of date if the round's record has a result of it that its present inputs would not find, or if an
    earlier stage is out of date.
    """
    _, manifests = plan_round(round)
    done = stage_records(round.storage, round.id)
    return {
        name: "up to date" if name in manifests else "out of date" if name in done else "not done yet"
        for name in round.stages
    }


def manifests_before(round: Round, name: StageName) -> dict[StageName, Manifest]:
    """Return the manifests of all stages before `name`.

    Raises:
        StageError: one of them is not done.
        DamagedArtifactError: one of them is damaged.
        ConfigError: the round has no such stage.
    """
    plans, manifests = plan_round(round)
    order = list(round.stages)
    before = plans[: order.index(round.stage(name).name)]
    for plan in before:
        if plan.stage not in manifests:
            if plan.status == "damaged":
                raise DamagedArtifactError(plan.note)
            raise StageError(
                f"the earlier stage {plan.stage} is not done",
                field=f"stage {name}",
                remedy=f"Run `ospo stage {name}` with the options of this round, or backfill {plan.stage} first",
            )
    return {plan.stage: manifests[plan.stage] for plan in before}


def count_chosen(round: Round, prompts: Manifest, where: str) -> int:
    """Return the number of prompts of a round that satisfy an SQL condition on the prompts table.

    Raises:
        ConfigError: the condition cannot be used.
        StageError: no prompt satisfies it.
    """
    shards = (read_shard(round.storage, prompts, index) for index in range(len(prompts.shards)))
    count = sum(len(chosen_items(shard, where)) for shard in shards)
    if not count:
        raise StageError(
            f"none of the {prompts.rows} prompts satisfies it", field="where", value=where, remedy="Correct it"
        )
    return count


def report_key(manifests: Mapping[StageName, Manifest]) -> str:
    """Return the storage key of a round's report, which is named after the last finished stage."""
    last = manifests[[name for name in StageName if name in manifests][-1]]
    return f"reports/{last.stage}-{last.fingerprint[:16]}.html"


def _child(manifests: Mapping[StageName, Manifest]) -> ModelPointer:
    """Return the pointer to the trained model of a round."""
    training, evaluation = manifests[StageName.TRAINING], manifests[StageName.EVALUATION]
    made = trained(training)
    return ModelPointer(
        digest=made.model.digest,
        key=made.merged,
        parent=made.parent.digest,
        training=training.fingerprint,
        evaluation=evaluation.fingerprint,
    )


def _gate(round: Round, manifests: Mapping[StageName, Manifest]) -> tuple[str, bool]:
    """Return how far the benchmark is that is the gate, in words, and whether parent and child are measured."""
    done = {label: one.scores() is not None for label, one in round.benchmarks(manifests).items()}
    states = [f"{label} {'measured' if done.get(label) else 'to be measured'}" for label in (PARENT, CHILD)]
    return f"gate {gate_name(round.config)}: {', '.join(states)}", done.get(CHILD, False) and done[PARENT]


def _plan_stage(run: StageRun, refresh: bool) -> tuple[StagePlan, Manifest | None]:
    """Look one stage up; one to be refreshed keeps its manifest for later stages, since its content may not change."""
    name = run.stage.name
    try:
        manifest = run.find(verify=False)
    except DamagedArtifactError as error:
        return StagePlan(stage=name, status="damaged", fingerprint=run.fingerprint, note=str(error)), None
    if manifest is not None:
        plan = StagePlan(
            stage=name,
            status="run" if refresh else "cached",
            fingerprint=run.fingerprint,
            rows=manifest.rows,
            note="to be refreshed" if refresh else _attempt_note(run),
        )
        return plan, manifest
    entries = [key for key in run.storage.list(run.prefix) if key.endswith(".json")]
    return StagePlan(stage=name, status="run", fingerprint=run.fingerprint, shards_done=len(entries)), None


def _attempt_note(run: StageRun) -> str:
    """Return which attempt a result is; empty for the ordinary one."""
    if run.attempt is None:
        return ""
    return f"recomputed, attempt {run.attempt.number}{f' where {run.attempt.where}' if run.is_partial else ''}"
