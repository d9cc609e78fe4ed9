"""A small storage with a recorded round, and what the commands read of it: for tests that damage it."""

from __future__ import annotations

from pathlib import Path

from ospo_core.artifacts.manifest import publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds import Round
from ospo_core.rounds.estimates import expected_seconds, expected_work
from ospo_core.rounds.garbage import find_garbage
from ospo_core.rounds.lineage import all_manifests, ancestors, cost, lineage
from ospo_core.rounds.plan import applied_promotion, apply_decision, plan_round, standings
from ospo_core.rounds.records import config_of, read_record, record_round
from ospo_core.schema import StageName
from ospo_core.stages.attempts import StageRecord, record_stage
from ospo_core.stages.model_ref import ModelPointer, promote
from tests.support.fake_stages import NumbersStage
from tests.support.manifests import generation, made
from tests.support.rounds import bound, made_up_model, small_round


class Stored:
    """A storage with one recorded round up to its promoted model, and a stage that was left unfinished."""

    def __init__(self, root: Path) -> None:
        self.config = small_round(root)
        self.storage = Storage(self.config.storage.root)
        self.round = record_round(Round(self.config, self.storage, made_up_model(self.config)))
        stages = generation(1, "0" * 64)
        decided = made(StageName.EVALUATION, 9, (stages[-1],), child="1" * 64, decision={"promote": True})
        self.prefixes = [one.prefix for one in (stages[-1], decided)]
        for one in (*stages, decided):
            publish_manifest(self.storage, one)
            record = StageRecord(stage=one.stage, fingerprint=one.fingerprint, base=one.fingerprint)
            record_stage(self.storage, self.round.id, record)
        made_by = {"training": stages[-1].fingerprint, "evaluation": decided.fingerprint}
        pointer = ModelPointer(digest="1" * 64, key=f"models/{'1' * 64}", parent="0" * 64, **made_by)
        promote(self.storage, pointer)
        self.left = bound(NumbersStage(), self.config)
        self.left.compute_shard(self.left.stage.shards(self.left)[0])

    def read_all(self) -> None:
        """Read everything as `ospo plan`, `rounds`, `lineage`, `cost` and `gc` do."""
        record = read_record(self.storage, self.round.id)
        round = Round(config_of(record), self.storage, record.model, record.kind)
        manifests = all_manifests(self.storage)
        lineage(manifests, "1" * 64)
        cost(manifests)
        expected_seconds(self.config, expected_work(self.config), manifests)
        for one in manifests:
            ancestors(manifests, one)
        find_garbage(self.storage, 0.0)
        plan_round(round)
        standings(round)
        last = {one.stage: one for one in manifests if one.prefix in self.prefixes}
        if len(last) == len(self.prefixes):  # a round decides when both are there
            apply_decision(self.storage, last)
            applied_promotion(self.storage, last)
        self.left.find_shard(self.left.stage.shards(self.left)[0])
