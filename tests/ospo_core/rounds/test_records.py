"""The records of rounds: written once, found by id, the result that counts, damage named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError, DamagedArtifactError
from ospo_core.rounds import Round
from ospo_core.rounds.records import (
    config_of,
    find_record,
    forget_round,
    read_record,
    record_round,
    round_ids,
    stage_records,
)
from ospo_core.schema import StageName
from ospo_core.stages.attempts import Attempt, StageRecord, record_stage, stage_record
from tests.support.rounds import made_up_model, small_round

RESULT = StageRecord(stage=StageName.IMAGES, fingerprint="a" * 64, base="b" * 64, attempt=Attempt(number=2))


def test_round_is_recorded_once_and_found_by_its_first_digits(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    storage, model = Storage(config.storage.root), made_up_model(config)
    opened = record_round(Round(config, storage, model))
    assert record_round(Round(config, storage, model)) == opened == read_record(storage, opened.id)
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
    record_stage(storage, "r", RESULT.model_copy(update={"attempt": None, "fingerprint": "b" * 64}))
    assert stage_records(storage, "r")[StageName.IMAGES].attempt is None
    assert forget_round(storage, "r") == 1 and stage_records(storage, "r") == {}


def test_damaged_record_is_named_with_what_to_do(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    record_stage(storage, "r", RESULT)
    storage.write("rounds/r/images.json", storage.read("rounds/r/images.json").replace(b"aaaa", b"aaab"))
    with pytest.raises(DamagedArtifactError, match=r"rounds/r/images\.json: the record is damaged.*writes it again"):
        stage_record(storage, "r", StageName.IMAGES)


def test_record_of_an_earlier_version_is_read() -> None:
    old = {"stage": "images", "fingerprint": "a" * 64, "base": "b" * 64, "at": "2026-01-01T00:00:00+00:00"}
    old |= {"redo": {"where": "", "overrides": [], "attempt": 2, "of": ""}}
    assert StageRecord.model_validate(old).attempt == Attempt(number=2)


def test_the_record_of_another_stage_or_round_is_not_taken(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    storage, model = Storage(config.storage.root), made_up_model(config)
    record_stage(storage, "r", RESULT)
    storage.write("rounds/r/pairs.json", storage.read("rounds/r/images.json"))
    with pytest.raises(DamagedArtifactError, match=r"rounds/r/pairs\.json: the record is that of another stage"):
        stage_record(storage, "r", StageName.PAIRS)
    opened = record_round(Round(config, storage, model))
    storage.write("rounds/other/round.json", storage.read(f"rounds/{opened.id}/round.json"))
    with pytest.raises(DamagedArtifactError, match=r"rounds/other/round\.json: the record is that of another round"):
        read_record(storage, "other")


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": "../../x"}, {"base": "/etc"}, {"attempt": {"number": 1, "of": "../x"}}, {"stage": "none"}],
)
def test_a_forged_record_of_a_stage_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    storage = Storage(str(tmp_path))
    storage.write("rounds/r/images.json", dump_checksummed({**RESULT.model_dump(), **change}))
    with pytest.raises(DamagedArtifactError, match=r"rounds/r/images\.json: the record is damaged"):
        stage_record(storage, "r", StageName.IMAGES)


@pytest.mark.parametrize("model", [{"digest": "../../x"}, {"source": "stored:../x"}, {"digest": "0" * 63}])
def test_a_forged_record_of_a_round_is_damage(tmp_path: Path, model: dict[str, str]) -> None:
    config = small_round(tmp_path)
    storage = Storage(config.storage.root)
    opened = record_round(Round(config, storage, made_up_model(config)))
    document = opened.model_dump()
    document["model"] |= model
    storage.write(f"rounds/{opened.id}/round.json", dump_checksummed(document))
    with pytest.raises(DamagedArtifactError, match=r"round\.json: the record is damaged"):
        read_record(storage, opened.id)


@pytest.mark.parametrize("change", [{"nope": 1}, {"seed": "x"}, {"storage": 5}, {"prompts": {"quotas": {"x": 1}}}])
def test_a_configuration_of_another_version_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    config = small_round(tmp_path)
    record = record_round(Round(config, Storage(config.storage.root), made_up_model(config)))
    assert config_of(record) == config and config_of(record, seed=5).seed == 5
    other = record.model_copy(update={"config": {**record.config, **change}})
    with pytest.raises(
        DamagedArtifactError, match=rf"rounds/{record.id}/round\.json: .*{next(iter(change))}.*--forget"
    ):
        config_of(other)
