"""A round: configuration, storage and starting model. It binds stages and decides which attempt counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest, manifest_key
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import load_shard_entry
from ospo_core.config import RoundConfig, change_config
from ospo_core.errors import ConfigError, DamagedArtifactError, StageError
from ospo_core.schema import CHILD, PARENT, StageName
from ospo_core.stages import STAGES, Stage, StageRun
from ospo_core.stages.attempts import Attempt, stage_record
from ospo_core.stages.base import Phase
from ospo_core.stages.benchmark import BENCHMARK
from ospo_core.stages.benchmark_gate import is_gate, unmeasured
from ospo_core.stages.evaluation import MODEL_EVALUATION
from ospo_core.stages.model_ref import ModelRef, role_model, trained_model
from ospo_core.stages.resources import Resources, shared_resources
from ospo_core.stages.training import IMPORTED_ONLY

RoundKind = Literal["round", "evaluation", "benchmark"]

_ID_DIGITS = 12

_STAGES: Mapping[RoundKind, Mapping[StageName, Stage]] = {
    "round": STAGES,
    "evaluation": {StageName.EVALUATION: MODEL_EVALUATION},
    "benchmark": BENCHMARK,
}


@dataclass(frozen=True)
class Round:
    """One round, or the evaluation of one model alone, on held-out prompts or on a benchmark.

    Args:
        config: the configuration.
        storage: where artifacts are kept.
        model: the model that it starts from.
        kind: which of these.
        resources: owner of the text engine and the loaded model.
        recorded_id: id under which an earlier version of the project recorded it; empty to compute the id.
    """

    config: RoundConfig
    storage: Storage
    model: ModelRef
    kind: RoundKind = "round"
    resources: Resources = field(default_factory=shared_resources)
    recorded_id: str = ""

    @property
    def stages(self) -> Mapping[StageName, Stage]:
        """The stages, in the order in which they run; without pairs of its own, a round begins with training."""
        if self.kind != "round" or self.config.training.own_pairs:
            return _STAGES[self.kind]
        return {StageName.TRAINING: IMPORTED_ONLY, StageName.EVALUATION: STAGES[StageName.EVALUATION]}

    def stage(self, name: StageName) -> Stage:
        """Return one of the stages.

        Raises:
            ConfigError: the round has no such stage.
        """
        found = self.stages.get(name)
        if found is None:
            raise ConfigError(
                f"a round that trains on imported pairs alone, or an evaluation, has no stage {name}",
                field="training.own_pairs",
                value=self.config.training.own_pairs,
                remedy=f"Its stages are {', '.join(one.value for one in self.stages)}",
            )
        return found

    @cached_property
    def id(self) -> str:
        """Twelve hex digits: a digest of everything that changes the results, so not of folders or batch sizes."""
        if self.recorded_id:
            return self.recorded_id
        stages = self.stages.values()
        fields = [[stage.name, stage.fields(self._going_on(self.config))] for stage in stages]
        judges = [stage.judge(self.config, self.storage, self.model) for stage in self._judging]
        parts: list[Any] = [self.kind, fields, self.model.digest, self.config.model.family, self.config.model.dtype]
        parts += [judge.identity() for judge in judges if judge is not None]
        writes = any(stage.phase is Phase.TEXT for stage in stages)
        if writes and (writer := role_model(self.config, self.storage, self.model, "writer")) is not None:
            parts.append({"writer": writer.digest})
        return digest_of(parts)[:_ID_DIGITS]

    def _going_on(self, config: RoundConfig) -> RoundConfig:
        """Return the configuration with the rate of a further round where the model comes from an earlier one."""
        training = config.training
        if training.further_rate == 1.0 or not self.model.is_stored:
            return config
        rate = training.learning_rate * training.further_rate
        return config.model_copy(update={"training": training.model_copy(update={"learning_rate": rate})})

    @property
    def is_gated(self) -> bool:
        """Whether a benchmark decides about the model that this round trains."""
        return self.kind == "round" and is_gate(self.config)

    @property
    def _judging(self) -> list[Stage]:
        """The stages whose judges belong to the identity of the round."""
        scores = [BENCHMARK[StageName.EVALUATION]] if self.is_gated else []
        return [*self.stages.values(), *scores]

    def benchmarks(self, upstream: Mapping[StageName, Manifest]) -> dict[str, Round]:
        """Return the benchmark that is the gate, of `parent`, and once there is a training of `child`."""
        models = {PARENT: self.model}
        if StageName.TRAINING in upstream:
            models[CHILD] = trained_model(upstream[StageName.TRAINING])
        return {label: replace(self, model=one, kind="benchmark", recorded_id="") for label, one in models.items()}

    def scores(self) -> Manifest | None:
        """Return the scores of a benchmark, or None if it has not run.

        Raises:
            DamagedArtifactError: its manifest is damaged.
        """
        pictures = self.bind(StageName.IMAGES, {}).find(verify=False)
        if pictures is None:
            return None
        return self.bind(StageName.EVALUATION, {StageName.IMAGES: pictures}).find(verify=False)

    def measured(self, upstream: Mapping[StageName, Manifest]) -> tuple[Manifest, Manifest] | None:
        """Return the scores of parent and child on the benchmark that is the gate, or None until both are there.

        Raises:
            DamagedArtifactError: one of their manifests is damaged.
        """
        found = {label: one.scores() for label, one in self.benchmarks(upstream).items()}
        before, after = found.get(PARENT), found.get(CHILD)
        return (before, after) if before is not None and after is not None else None

    def bind(self, name: StageName, upstream: Mapping[StageName, Manifest], attempt: Attempt | None = None) -> StageRun:
        """Return a stage of this round, in the attempt that counts or in a new one.

        The recorded attempt counts as long as the ordinary result is still the one it was made beside; with other
        inputs the ordinary result counts again. A new attempt that was interrupted is resumed.

        Args:
            name: which stage.
            upstream: manifests of earlier stages.
            attempt: request for a new attempt; None is the one that counts.

        Raises:
            ConfigError: the request does not fit the stage.
            StageError: some items are to be recomputed, and there is no result yet; or a benchmark decides, and parent
                and child have not been measured.
            DamagedArtifactError: the record of the stage is damaged.
        """
        ordinary = self._bind(name, upstream, None)
        record = stage_record(self.storage, self.id, name)
        recorded = record.attempt if record is not None and record.base == ordinary.fingerprint else None
        counting = self._bind(name, upstream, recorded) if recorded is not None else ordinary
        run = counting if attempt is None else self._next_attempt(counting, attempt)
        return replace(run, base=ordinary.fingerprint)

    def _bind(self, name: StageName, upstream: Mapping[StageName, Manifest], attempt: Attempt | None) -> StageRun:
        config = change_config(self.config, attempt.overrides) if attempt is not None else self.config
        measured = None
        if self.is_gated and name is StageName.EVALUATION:
            measured = self.measured(upstream)
            if measured is None:
                raise unmeasured(config)
        return StageRun.bind(
            self.stage(name),
            self._going_on(config),
            self.storage,
            self.model,
            upstream,
            resources=self.resources,
            attempt=attempt,
            round_id=self.id,
            measured=measured,
        )

    def _next_attempt(self, last: StageRun, wanted: Attempt) -> StageRun:
        """Return the first attempt after `last` that is neither published nor damaged."""
        stage = last.stage
        self._check_attempt(stage, wanted)
        if wanted.where and not self.storage.exists(manifest_key(stage.name, last.fingerprint)):
            raise StageError(
                "has no result yet, so some of its items cannot be recomputed",
                field=f"stage {stage.name}",
                remedy="Omit the condition, or run the stage first",
            )
        of = last.fingerprint if wanted.where else ""
        number = last.attempt.number if last.attempt is not None else 0
        while True:
            number += 1
            attempt = wanted.model_copy(update={"number": number, "of": of})
            run = self._bind(stage.name, last.upstream, attempt)
            if not _is_used(run):
                return run

    def _check_attempt(self, stage: Stage, wanted: Attempt) -> None:
        """Refuse a condition where rows depend on each other, and options that also change other stages.

        Raises:
            ConfigError: the request has either.
        """
        if wanted.where and not stage.independent_items:
            able = ", ".join(one.name.value for one in self.stages.values() if one.independent_items)
            raise ConfigError(
                f"stage {stage.name} cannot be recomputed for some items only",
                field="where",
                value=wanted.where,
                remedy=f"Omit it, or choose one of: {able}",
            )
        changed = change_config(self.config, wanted.overrides)
        others = [one for one in self.stages.values() if one.name is not stage.name]
        affected = [one.name.value for one in others if one.fields(self.config) != one.fields(changed)]
        if affected or changed.model != self.config.model or changed.storage != self.config.storage:
            raise ConfigError(
                f"also changes the results of other stages ({', '.join(affected) or 'all of them'})",
                field="overrides",
                value=list(wanted.overrides),
                remedy=f"Change options of stage {stage.name} only, or start another round with them",
            )


def _is_used(run: StageRun) -> bool:
    """Return whether an attempt is published, or was left behind damaged."""
    if run.storage.exists(manifest_key(run.stage.name, run.fingerprint)):
        return True
    entries = [key for key in run.storage.list(run.prefix) if key.endswith(".json")]
    try:
        for key in entries:
            load_shard_entry(run.storage, run.prefix, key.rpartition("/")[2].removesuffix(".json"))
    except DamagedArtifactError:
        return True
    return False
