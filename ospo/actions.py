"""What the commands do: load the profile, run a flow, show the outcome. Prefect is configured, then imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.prefect_server import configure_prefect, start_server
from ospo import output
from ospo.progress import progress_bars
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig, load_profile
from ospo_core.errors import ConfigError, OspoError, StageError
from ospo_core.rounds import Round
from ospo_core.rounds.lineage import all_manifests, ancestors, cost, find_model, lineage
from ospo_core.rounds.plan import estimate_seconds, plan_round, report_key
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model, starting_model
from ospo_core.stages.progress import listening
from ospo_core.stages.training import MODEL_DIGEST


class InterruptedRunError(OspoError):
    """Ctrl-C; the exit code is the one that shells use for it."""

    exit_code = 130


def run_round(
    profile: str, overrides: Sequence[str], refresh: list[StageName], verbose: bool, until: StageName | None = None
) -> None:
    """Run a round, up to `until` if given, and show its summary."""
    config = load_profile(profile, overrides)
    _check_refresh(refresh, until)
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


def show_plan(profile: str, overrides: Sequence[str], refresh: list[StageName]) -> None:
    """Show what a round would do."""
    config = load_profile(profile, overrides)
    storage = storage_of(config)
    plans, _ = plan_round(Round(config, storage, starting_model(config, storage)), refresh)
    output.show_plan(plans, estimate_seconds(config, all_manifests(storage)))


def show_status(profile: str, overrides: Sequence[str]) -> None:
    """Show the current model, the plan, and how many results of each stage the storage holds."""
    config = load_profile(profile, overrides)
    storage = storage_of(config)
    model = starting_model(config, storage)
    output.show_models(storage.uri(), model, current_model(storage))
    output.show_plan(plan_round(Round(config, storage, model))[0])
    output.show_inventory({name: _finished(storage, name) for name in StageName})


def show_lineage(checkpoint: str, profile: str, overrides: Sequence[str]) -> None:
    """Show the generations of a trained model.

    Raises:
        ModelError: the storage has no such model.
    """
    storage = storage_of(load_profile(profile, overrides))
    manifests = all_manifests(storage)
    output.show_lineage(lineage(manifests, find_model(storage, manifests, checkpoint)))


def show_cost(profile: str, overrides: Sequence[str]) -> None:
    """Show what every stage took, over all results, and what every trained model took with all it was made from."""
    manifests = all_manifests(storage_of(load_profile(profile, overrides)))
    stages = {name.value: cost(one for one in manifests if one.stage is name) for name in StageName}
    output.show_cost("By stage", {name: took for name, took in stages.items() if took.results})
    models = {
        str(one.extra[MODEL_DIGEST])[:12]: cost([one, *ancestors(manifests, one)])
        for one in manifests
        if one.stage is StageName.TRAINING
    }
    output.show_cost("By trained model, with all that it was made from", models)


def write_report(profile: str, overrides: Sequence[str]) -> None:
    """Write the report of what is cached of a round.

    Raises:
        StageError: nothing of it is cached.
    """
    from ospo_core.report.html import write_report as write_html

    config = load_profile(profile, overrides)
    storage = storage_of(config)
    _, manifests = plan_round(Round(config, storage, starting_model(config, storage)))
    if not manifests:
        raise StageError(
            "nothing of this round is there yet", field=storage.uri(), remedy="Run `ospo round` with the same options"
        )
    output.show_round(manifests, None, None, write_html(storage, manifests, config, report_key(manifests)))


@contextmanager
def embedded_prefect(config: RoundConfig, verbose: bool) -> Iterator[None]:
    """Configure Prefect, start its embedded server if needed, and draw progress while the block runs."""
    configure_prefect(Path(config.storage.scratch), verbose)
    try:
        with progress_bars() as (listener, say):
            say("starting Prefect")
            start_server()
            say("")
            with listening(listener):
                yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            "interrupted", remedy="Run the same command again to go on from the last complete shard"
        ) from error


def storage_of(config: RoundConfig) -> Storage:
    """Return the artifact storage of a configuration."""
    from tasks.credentials import open_storage

    return open_storage(config)


def _finished(storage: Storage, name: StageName) -> int:
    """Return how many finished results of a stage the storage holds."""
    return sum(key.endswith("/manifest.json") for key in storage.list(name.value))


def _check_refresh(refresh: Sequence[StageName], until: StageName | None) -> None:
    order = list(StageName)
    late = [name.value for name in refresh if until is not None and order.index(name) > order.index(until)]
    if late:
        raise ConfigError(
            "this stage is not run", field="--refresh", value=late[0], remedy=f"Refresh {until} or a stage before it"
        )
