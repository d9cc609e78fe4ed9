"""What `ospo experiments run` does: run the flow, compare the arms, write the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ospo import output
from ospo.actions import embedded_prefect
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import iter_rows
from ospo_core.config import ExperimentConfig, load_experiment
from ospo_core.errors import ConfigError

if TYPE_CHECKING:
    from flows.experiment import Measurement
    from ospo_core.report.experiment import Curve, Results

_COLUMNS = ["item_id", "category", "oracle_correct", "vqa_correct"]


def run(name: str, overrides: Sequence[str], out: Path, verbose: bool) -> None:
    """Run an experiment and write `results.md` with its curves into `out`."""
    experiment = load_experiment(name, tuple(overrides))
    _make_folder(out)
    with embedded_prefect(experiment.arms[0].config, verbose):
        from flows.experiment import run_experiment

        measured = run_experiment(experiment)
    from ospo_core.report.experiment import results_markdown, write_results

    results = compared(experiment, measured)
    output.show_title(f"Written to {write_results(results, out)}")
    output.show_text(results_markdown(results))


def _make_folder(out: Path) -> None:
    """Create the folder of the results before hours of work need it.

    Raises:
        ConfigError: it cannot be created.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        problem = f"no folder can be made here: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(problem, field="--out", value=str(out), remedy="Give another folder") from None


def compared(experiment: ExperimentConfig, measured: Sequence[Measurement]) -> Results:
    """Read the verdicts of all measurements and compare the arms with the base."""
    from flows.experiment import BASE
    from ospo_core.evaluation.comparison import Key, compare, verdicts
    from ospo_core.evaluation.promotion import metric_column
    from ospo_core.report.experiment import Results

    config = experiment.arms[0].config
    storage = Storage(config.storage.root, config.storage.endpoint_url)
    found = {}
    for one in measured:
        rows = list(iter_rows(storage, one.evaluation, _COLUMNS))
        _, column = metric_column(rows, config.promotion.metric)
        found[Key(one.arm, one.seed, one.guidance)] = verdicts(rows, column)
    reference = experiment.reference or ""
    gains, against = (
        [asdict(gain) for gain in compare(found, base, config.evaluation.bootstrap)] if base else []
        for base in (BASE, reference)
    )
    return Results(
        experiment.name,
        experiment.title,
        {BASE: "base", **experiment.titles()},
        gains,
        prompts=len(next(iter(found.values())).right),
        seeds=experiment.seeds,
        notes=_notes(experiment, measured),
        reference=reference,
        against=against,
        curves={label: _curves(storage, _trainings(measured, label)) for label in experiment.titles()},
    )


def _trainings(measured: Sequence[Measurement], label: str) -> list[Manifest]:
    """Return the trainings of an arm's round, without repetition, in the order of the seeds."""
    trainings = [one.training for one in measured if one.arm == label and one.training is not None]
    return list({one.fingerprint: one for one in trainings}.values())


def _curves(storage: Storage, trainings: Sequence[Manifest]) -> list[Curve]:
    """Return, for every training, the log-probability of the chosen image by step."""
    curves: list[Curve] = []
    for training in trainings:
        rows = [row for row in iter_rows(storage, training) if row["name"] == "chosen_logprob"]
        curves.append(([row["step"] for row in rows], [row["value"] for row in rows]))
    return curves


def _notes(experiment: ExperimentConfig, measured: Sequence[Measurement]) -> dict[str, str]:
    """Return, for each arm, the number of pairs and of training steps."""
    notes: dict[str, str] = {}
    for label in experiment.titles():
        trainings = _trainings(measured, label)
        pairs, steps = (sorted({int(training.counts[name]) for training in trainings}) for name in ("pairs", "steps"))
        count = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
        notes[label] = f"{count} pairs, {steps[0]} steps"
    return notes
