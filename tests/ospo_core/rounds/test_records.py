"""The records of rounds: one id for what is the same round, the result that counts, damage named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError, DamagedArtifactError
from ospo_core.rounds.records import (
    StageRecord,
    find_record,
    forget_round,
    open_record,
    read_record,
    record_stage,
    round_id,
    round_ids,
    stage_record,
    stage_records,
)
from ospo_core.schema import StageName
from ospo_core.stages.redo import Redo
from tests.support.rounds import made_up_model, small_round

RESULT = StageRecord(stage=StageName.IMAGES, fingerprint="a" * 64, base="b" * 64, redo=Redo(attempt=2))


def test_id_follows_what_changes_results_and_nothing_else(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    model = made_up_model(config)
    same = small_round(
        tmp_path,
        storage={"root": "elsewhere", "scratch": "there"},
        images={"batch_size": 3},
        execution={"runner": "ray"},
        model={"path": str(tmp_path / "moved"), "device": "auto"},
    )
    assert round_id(same, model) == round_id(config, model)
    others = [small_round(tmp_path, seed=1), small_round(tmp_path, images={"guidance": 2.0})]
    identities = {round_id(one, model) for one in (config, *others)}
    identities |= {
        round_id(config, model.model_copy(update={"digest": "1" * 64})),
        round_id(config, model, "evaluation"),
    }
    assert len(identities) == 5


def test_round_is_opened_once_and_found_by_its_first_digits(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    storage, model = Storage(config.storage.root), made_up_model(config)
    opened = open_record(storage, config, model)
    assert open_record(storage, config, model) == opened == read_record(storage, opened.id)
    assert find_record(storage, opened.id[:4]) == opened and round_ids(storage) == [opened.id]
    for wanted in ("zzzz", opened.id[:3], ""):
        with pytest.raises(ConfigError, match=f"at least 4 digits of one of: {opened.id}"):
            find_record(storage, wanted)


def test_last_result_of_a_stage_counts_and_an_equal_one_writes_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert stage_record(storage, "r", StageName.IMAGES) is None
    record_stage(storage, "r", RESULT)
    written = storage.read("rounds/r/images.json")
    record_stage(storage, "r", RESULT.model_copy(update={"at": "later"}))
    assert storage.read("rounds/r/images.json") == written
    record_stage(storage, "r", RESULT.model_copy(update={"redo": None, "fingerprint": "b" * 64}))
    assert stage_records(storage, "r")[StageName.IMAGES].redo is None
    assert forget_round(storage, "r") == 1 and stage_records(storage, "r") == {}


def test_damaged_record_is_named_with_what_to_do(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    record_stage(storage, "r", RESULT)
    storage.write("rounds/r/images.json", storage.read("rounds/r/images.json").replace(b"aaaa", b"aaab"))
    with pytest.raises(DamagedArtifactError, match=r"rounds/r/images\.json: the record is damaged.*writes it again"):
        stage_record(storage, "r", StageName.IMAGES)
