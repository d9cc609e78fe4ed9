"""Records with a right checksum that somebody changed: a damaged one is named, and nothing else goes wrong."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.manifest import publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import OspoError
from ospo_core.rounds import Round
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

ODD = [None, -1, 10**400, 1e300, "", "../x", "/etc", "\u202e", True, [], ["x"], {}, {"a": {}}]
SAMPLE = 20
"""Changes tried per file; with all of them, some 3600, the outcome is the same."""


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
        for one in manifests:
            ancestors(manifests, one)
        find_garbage(self.storage, 0.0)
        plan_round(round)
        standings(round)
        last = {one.stage: one for one in manifests if one.prefix in self.prefixes}
        apply_decision(self.storage, last)
        applied_promotion(self.storage, last)
        self.left.find_shard(self.left.stage.shards(self.left)[0])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("forged"))


def places(document: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    if path:
        yield path
    if isinstance(document, dict):
        for name, value in document.items():
            yield from places(value, (*path, name))
    elif isinstance(document, list):
        for index, value in enumerate(document[:2]):
            yield from places(value, (*path, index))


def changed(document: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return a copy of `document` with another value at `path`; Ellipsis removes it."""
    made = copy.deepcopy(document)
    inner: Any = made
    for part in path[:-1]:
        inner = inner[part]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made


def test_no_change_of_a_record_fails_in_another_way(stored: Stored) -> None:
    stored.read_all()
    generator, storage = random.Random(0), stored.storage
    before = storage.list()
    for key in [key for key in before if key.endswith(".json")]:
        whole = storage.read(key)
        document = json.loads(whole)
        del document["sha256_of_this_document"]
        tries = [(path, value) for path in places(document) for value in (*ODD, ...)]
        for path, value in generator.sample(tries, min(SAMPLE, len(tries))):
            storage.write(key, dump_checksummed(changed(document, path, value)))
            try:
                stored.read_all()
            except OspoError as error:
                assert error.remedy, f"{error} (at {path} of {key})"
        storage.write(key, whole)
    assert storage.list() == before
