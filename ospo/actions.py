"""What the commands do: load the profile, run a flow or read the storage, show the result.

Prefect reads its settings when it is imported, so flows are imported after `embedded_prefect` has set them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.prefect_server import configure_prefect, start_server
from ospo import output
from ospo.progress import progress_bars
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.library import Library
from ospo_core.browsing.sessions import judge_verdicts
from ospo_core.config import RoundConfig, change_config, load_profile
from ospo_core.errors import ConfigError, DamagedArtifactError, MissingModelError, StageError, StorageError
from ospo_core.evaluation.labels import LabelReader
from ospo_core.evaluation.people import judge_by_people, preference
from ospo_core.prompts.families import family
from ospo_core.prompts.filters import ContaminationCheck
from ospo_core.prompts.probe import Probe, probe
from ospo_core.rounds import Round
from ospo_core.rounds.estimates import expected_seconds, expected_work
from ospo_core.rounds.garbage import find_garbage, remove
from ospo_core.rounds.lineage import all_manifests, ancestors, cost, find_model, lineage
from ospo_core.rounds.plan import (
    FinishedRound,
    StagePlan,
    finished_round,
    plan_round,
    report_key,
    standings,
    with_answers,
)
from ospo_core.rounds.preflight import CHECKS, preflight
from ospo_core.rounds.records import config_of, find_record, forget_round, read_record, round_ids
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model, starting_model, trained
from ospo_core.stages.partial import KEPT_ROWS
from ospo_core.stages.progress import Event, emit, listening
from ospo_core.stages.prompts import excluded_prompts
from ospo_core.stages.resources import import_text_engine


def run_round(
    profile: str, overrides: Sequence[str], refresh: list[StageName], verbose: bool, until: StageName | None = None
) -> None:
    """Run a round, up to `until` if given, and show its summary; a finished one is shown without starting Prefect."""
    config = load_profile(profile, overrides)
    _check_refresh(refresh, until)
    if not refresh and (done := _finished(config, until)) is not None:
        output.show_round(done.manifests, (), done.promotion, done.report)
        return
    with embedded_prefect(config, verbose):
        from flows.round import self_improvement_round

        result = self_improvement_round(config, refresh=refresh, until=until)
    output.show_round(result.manifests, result.ran, result.promotion, result.report)


def run_improve(profile: str, overrides: Sequence[str], refresh: list[StageName], rounds: int, verbose: bool) -> None:
    """Run several rounds and show the summary of each."""
    config = load_profile(profile, overrides)
    with embedded_prefect(config, verbose):
        from flows.improve import self_improve

        results = self_improve(config, rounds=rounds, refresh=refresh)
    for number, result in enumerate(results, start=1):
        output.show_title(f"Round {number} of {rounds}, from model {result.model.digest[:12]}")
        output.show_round(result.manifests, result.ran, result.promotion, result.report)


def run_evaluate(profile: str, overrides: Sequence[str], refresh: bool, verbose: bool) -> None:
    """Evaluate one model and show its accuracy."""
    config = load_profile(profile, overrides)
    with embedded_prefect(config, verbose):
        from flows.evaluate import evaluate

        manifest = evaluate(config, refresh)
    output.show_accuracy(config.model.path, manifest.extra["accuracy"])


def show_plan(profile: str, overrides: Sequence[str], refresh: list[StageName], gpus: int) -> None:
    """Show what a round would do, and what that costs on `gpus` GPUs.

    Costs do not depend on the model's weights or on the storage, so it is no error that neither is there yet.
    """
    config = load_profile(profile, overrides)
    manifests: Sequence[Manifest] = ()
    try:
        storage = storage_of(config)
        manifests = all_manifests(storage)
        plans, _ = plan_round(Round(config, storage, starting_model(config, storage, download=False)), refresh)
    except DamagedArtifactError:
        raise
    except (MissingModelError, StorageError) as error:
        plans = [StagePlan(stage=name, status="waits") for name in StageName]
        output.show_text(f"Nothing can be looked up yet: {error}")
    work = expected_work(config)
    output.show_plan(plans, work, expected_seconds(config, work, manifests), gpus)


def run_doctor(profile: str, overrides: Sequence[str]) -> None:
    """Try everything that a round needs, once, and show the outcome of each check.

    Raises:
        StageError: a check failed.
    """
    config = load_profile(profile, overrides)
    storage = storage_of(config)
    round = Round(config, storage, starting_model(config, storage))
    failed = []
    try:
        for found in preflight(round):
            output.show_finding(found)
            failed += [found.check] if found.error is not None else []
    finally:
        round.resources.release()
    if failed:
        raise StageError(
            f"{len(failed)} of {len(CHECKS)} checks failed", field="doctor", value=failed, remedy="Mend these first"
        )
    output.show_text("A round can start.")


def run_probe(profile: str, overrides: Sequence[str], answers: int, as_json: bool) -> None:
    """Let the starting model write a few answers to each text task, and show how many can be used.

    Raises:
        StageError: fewer than `engine.min_parsed` of the answers to a task have the expected form.
    """
    config = load_profile(profile, overrides)
    storage = storage_of(config)
    round = Round(config, storage, starting_model(config, storage))
    contamination = ContaminationCheck(excluded_prompts(config))
    found: list[Probe] = []
    try:
        engine = round.bind(StageName.PROMPTS, {}).text_engine()
        for one in probe(engine, family(config.model.family), config, answers, contamination):
            found.append(one)
            if not as_json:
                output.show_probe(one, heading=len(found) == 1)
    finally:
        round.resources.release()
    output.show_probes_as_json(found) if as_json else output.show_failures(found)
    below = [one for one in found if one.answers and one.share(one.parsed) < config.engine.min_parsed]
    if below:
        raise StageError(
            "too few answers have the expected form; a round would stop",
            field="engine.min_parsed",
            value=", ".join(f"{one.sub_category} {one.task} {one.share(one.parsed):.0%}" for one in below),
            remedy="Look at the failures; check that model.family fits the model, or use another model",
        )


def show_status(profile: str, overrides: Sequence[str]) -> None:
    """Show the current model, the plan, and how many results of each stage the storage holds."""
    config = load_profile(profile, overrides)
    storage = storage_of(config)
    model = starting_model(config, storage, download=False)
    keys = {name: storage.list(name.value) for name in StageName}
    counts = {name: sum(key.endswith("/manifest.json") for key in keys[name]) for name in keys}
    output.show_state(storage.uri(), model, current_model(storage), counts)
    output.show_plan(plan_round(Round(config, storage, model))[0])


def show_lineage(checkpoint: str, profile: str, overrides: Sequence[str]) -> None:
    """Show the generations of a trained model.

    Raises:
        ModelError: the storage has no such model.
    """
    storage = storage_of(load_profile(profile, overrides))
    manifests = all_manifests(storage)
    output.show_lineage(lineage(manifests, find_model(storage, manifests, checkpoint)))


def show_cost(profile: str, overrides: Sequence[str]) -> None:
    """Show the cost of each stage over all results, and of each trained model including everything behind it."""
    manifests = all_manifests(storage_of(load_profile(profile, overrides)))
    stages = {name.value: cost(one for one in manifests if one.stage is name) for name in StageName}
    output.show_cost("By stage", {name: took for name, took in stages.items() if took.results})
    models = {
        trained(one).model.digest[:12]: cost([one, *ancestors(manifests, one)])
        for one in manifests
        if one.stage is StageName.TRAINING
    }
    output.show_cost("By trained model, including everything behind it", models)


def write_report(profile: str, overrides: Sequence[str]) -> None:
    """Write the report of a round from cached results.

    Raises:
        StageError: no stage of the round is cached.
    """
    from ospo_core.report.html import write_report as write_html

    config = load_profile(profile, overrides)
    storage = storage_of(config)
    _, manifests = plan_round(Round(config, storage, starting_model(config, storage, download=False)))
    if not manifests:
        raise StageError(
            "no stage of this round is cached", field=storage.uri(), remedy="Run `ospo round` with the same options"
        )
    manifests = with_answers(storage, manifests, config.promotion.people_prompts)
    output.show_round(manifests, None, None, write_html(storage, manifests, config, report_key(manifests)))


def show_rounds(profile: str, overrides: Sequence[str]) -> None:
    """List the rounds of a storage, oldest first, with the stages that are complete and those that are out of date."""
    storage = storage_of(load_profile(profile, overrides))
    records = [read_record(storage, identity) for identity in round_ids(storage)]
    listed = []
    for record in sorted(records, key=lambda one: one.created_at):
        config = config_of(record)
        round = Round(config, storage, record.model, record.kind, recorded_id=record.id)
        found = standings(round) if record.kind == "round" else {}
        listed.append((record, config, found))
    output.show_rounds(storage.uri(), current_model(storage), listed)


def show_labels(profile: str, overrides: Sequence[str]) -> None:
    """Show what people's answers say about every evaluation that they have judged."""
    storage = storage_of(load_profile(profile, overrides))
    library, reader = Library(storage), LabelReader(storage)
    evaluations = reader.evaluations()
    if not evaluations:
        output.show_text(f"No answers of people in {storage.uri()}. `ospo browse` asks for them.")
    for fingerprint in evaluations:
        labels = reader.of(fingerprint)
        verdicts = judge_verdicts(storage, library.manifest(StageName.EVALUATION, fingerprint))
        output.show_labels(fingerprint, preference(labels), judge_by_people(labels, verdicts))


def run_backfill(
    profile: str,
    overrides: Sequence[str],
    stage: StageName,
    round: str | None,
    where: str,
    refresh: bool,
    cascade: bool,
    changes: Sequence[str],
    verbose: bool,
) -> None:
    """Run a backfill, show the stage's figures and what is out of date; see `flows.backfill.backfill`."""
    config = load_profile(profile, overrides)
    change_config(config, changes)  # before Prefect stores them
    with embedded_prefect(config, verbose):
        from flows.backfill import backfill

        result = backfill(
            config, stage, round=round, where=where, refresh=refresh, cascade=cascade, overrides=list(changes)
        )
    output.show_round({stage: result.manifest}, [stage] if result.ran else [], None, "")
    kept = result.manifest.counts.get(KEPT_ROWS)
    if result.ran and kept is not None:
        output.show_text(f"{result.manifest.rows - kept:.0f} rows recomputed, {kept:.0f} kept.")
    if result.cascade is not None:
        later = result.cascade
        output.show_round(later.manifests, later.ran, later.promotion, later.report)
    output.show_outdated(result.round, result.outdated)


def collect_garbage(
    profile: str, overrides: Sequence[str], forget: Sequence[str], keep_hours: float, delete: bool
) -> None:
    """Show what no round refers to; with `delete`, delete it and the records of the rounds in `forget`."""
    storage = storage_of(load_profile(profile, overrides))
    forgotten = [find_record(storage, wanted).id for wanted in forget]
    found = find_garbage(storage, keep_hours, forgotten)
    output.show_garbage(found, forgotten, delete)
    if delete:
        for identity in forgotten:
            forget_round(storage, identity)
        remove(storage, found)


@contextmanager
def embedded_prefect(config: RoundConfig, verbose: bool) -> Iterator[None]:
    """Configure Prefect, start its embedded server if needed, and draw progress while the block runs."""
    configure_prefect(Path(config.storage.scratch), verbose)
    with progress_bars() as (listener, say):
        say("starting Prefect")
        start_server(lambda: _import_engine(config))
        say("")
        with listening(listener):
            yield


def storage_of(config: RoundConfig) -> Storage:
    """Return the artifact storage of a configuration."""
    from tasks.credentials import open_storage

    return open_storage(config)


def _finished(config: RoundConfig, until: StageName | None) -> FinishedRound | None:
    """Return the round if nothing is left to do, and draw its stages as cached."""
    if config.storage.credentials_block is not None:
        return None  # only Prefect can read the block
    storage = storage_of(config)
    done = finished_round(Round(config, storage, starting_model(config, storage)), until)
    with progress_bars() as (listener, _), listening(listener):
        for name in done.manifests if done is not None else ():
            emit(Event("cached", name))
    return done


def _import_engine(config: RoundConfig) -> None:
    """Import what the text engine needs if the prompts of a round are still to be written, in this process."""
    elsewhere = config.execution.runner == "ray" or config.execution.processes not in ("auto", 1)
    if elsewhere or config.storage.credentials_block is not None:
        return
    storage = storage_of(config)
    round = Round(config, storage, starting_model(config, storage))
    if StageName.PROMPTS not in round.stages:
        return
    prompts = round.bind(StageName.PROMPTS, {})
    if prompts.find(verify=False) is None:
        import_text_engine(config.engine)


def _check_refresh(refresh: Sequence[StageName], until: StageName | None) -> None:
    order = list(StageName)
    late = [name.value for name in refresh if until is not None and order.index(name) > order.index(until)]
    if late:
        raise ConfigError(
            "this stage does not run",
            field="--refresh",
            value=late[0],
            remedy=f"Refresh {until} or an earlier stage",
        )
