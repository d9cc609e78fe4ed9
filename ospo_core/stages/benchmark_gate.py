"""The evaluation of a round whose gate is a benchmark: what counts in its identity, and the decision.

Parent and child are measured as `ospo benchmark` measures a model, under records of their own, so that the next round
finds the scores of its parent. `Round.measured` hands the scores in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ospo_core.artifacts.tables import iter_rows
from ospo_core.config import RoundConfig
from ospo_core.config.sections import EMBEDDED
from ospo_core.errors import ConfigError, StageError
from ospo_core.evaluation.benchmark_gate import decide_by_benchmark, gated_extra
from ospo_core.evaluation.benchmarks.comparison import SUMMARY
from ospo_core.evaluation.promotion import BENCHMARK as BENCHMARK_METRIC
from ospo_core.schema import CHILD, PARENT
from ospo_core.stages.benchmark import BENCHMARK, is_judged

if TYPE_CHECKING:
    from ospo_core.stages.run import StageRun

_FACTS = ("benchmark", "samples", "guidance", "temperature", "changed", "scored_by")


def is_gate(config: RoundConfig) -> bool:
    """Return whether a benchmark decides about the trained model."""
    return config.promotion.metric == BENCHMARK_METRIC


def gate_name(config: RoundConfig) -> str:
    """Return the name of the benchmark, for people: of a file of prompts its last part."""
    return Path(config.benchmark.name).name


def gate_fields(config: RoundConfig) -> dict[str, Any]:
    """Return what of the benchmark changes the evaluation; nothing where it is not the gate.

    Raises:
        ConfigError: the benchmark cannot be the gate, or its prompts cannot be read.
    """
    if not is_gate(config):
        return {}
    _check(config)
    return {"gate": {name.value: stage.fields(config) for name, stage in BENCHMARK.items()}}


def decision_extra(run: StageRun, extra: dict[str, Any]) -> dict[str, Any]:
    """Return the `extra` of an evaluation with the decision of the benchmark, if that is the gate.

    Raises:
        StageError: parent and child were not measured, or have no scored prompt in common.
    """
    if not is_gate(run.config):
        return extra
    if run.measured is None:
        raise unmeasured(run.config)
    before, after = run.measured
    summary = after.extra[SUMMARY]
    decision = decide_by_benchmark(
        gate_name(run.config),
        summary["benchmark"],
        list(iter_rows(run.storage, before)),
        list(iter_rows(run.storage, after)),
        run.config.promotion,
        run.config.evaluation.bootstrap,
    )
    facts = {name: summary[name] for name in _FACTS}
    scores = {PARENT: before.fingerprint, CHILD: after.fingerprint}
    return gated_extra(extra, decision, {**facts, "name": gate_name(run.config), "scores": scores})


def unmeasured(config: RoundConfig) -> StageError:
    """Return the error for an evaluation that is asked for before its benchmark has run."""
    return StageError(
        f"parent and child have not been measured on {gate_name(config)}",
        field="stage evaluation",
        remedy="Run `ospo round` or `ospo stage evaluation`, which measure both first",
    )


def _check(config: RoundConfig) -> None:
    """Refuse what says nothing about the model, or compares two models by two judges."""
    if config.benchmark.name == EMBEDDED and config.model.family != "shapes":
        raise ConfigError(
            "names no benchmark that this model could be measured on, and promotion.metric=benchmark needs one",
            field="benchmark.name",
            value=config.benchmark.name,
            remedy="Give t2i-compbench, geneval, dpg or a file of prompts, or another promotion.metric",
        )
    if is_judged(config) and config.evaluation.judge in ("self", "parent"):
        raise ConfigError(
            "would judge parent and child by different models, or the parents of two rounds",
            field="evaluation.judge",
            value=config.evaluation.judge,
            remedy="With promotion.metric=benchmark give start, endpoint or a model's path, or "
            "benchmark.scorer=evaluators",
        )
