"""Opening a round, the gate's verdict made real, and the report that is not written twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError, StorageError
from ospo_core.rounds.records import round_ids
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model
from tasks import round_tasks
from tasks.credentials import open_storage
from tests.support.rounds import model_files, small_round

pytestmark = pytest.mark.usefixtures("prefect_server")

GROUP = {"name": "all", "prompts": 4, "parent": 0.2, "child": 0.5}
GROUP |= {"parent_low": 0.1, "parent_high": 0.4, "child_low": 0.3, "child_high": 0.7}
GROUP |= {"difference": 0.3, "difference_low": 0.1, "difference_high": 0.5}


def finished(promote: bool) -> dict[StageName, Manifest]:
    decision = {"promote": promote, "reason": "so it is", "metric": "vqa", "overall": GROUP, "categories": []}
    extras: Mapping[StageName, dict[str, Any]] = {
        StageName.TRAINING: {"model_digest": "b" * 64, "merged": "models/b", "parent_digest": "a" * 64},
        StageName.EVALUATION: {"decision": decision},
    }
    return {
        name: Manifest(stage=name, fingerprint="f" * 64, version=1, rows=0, items_in=0, extra=extra)
        for name, extra in extras.items()
    }


def test_promoted_child_becomes_the_current_model(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    assert round_tasks.apply_decision.fn(config, finished(promote=True)).changed
    pointer = current_model(open_storage(config))
    assert pointer is not None and (pointer.digest, pointer.parent) == ("b" * 64, "a" * 64)
    assert not round_tasks.apply_decision.fn(config, finished(promote=True)).changed


def test_a_nightly_run_starts_from_the_promoted_model_and_its_retries_from_the_same(tmp_path: Path) -> None:
    model_files(tmp_path / "model")
    config = small_round(tmp_path)
    configured = round_tasks.nightly_start.fn(config, "first night")
    assert configured.source == str(tmp_path / "model")
    round_tasks.apply_decision.fn(config, finished(promote=True))
    assert round_tasks.nightly_start.fn(config, "first night") == configured
    promoted = round_tasks.nightly_start.fn(config, "second night")
    assert (promoted.digest, promoted.source) == ("b" * 64, "stored:models/b")
    assert open_storage(config).list("nightly") == ["nightly/first night.json", "nightly/second night.json"]


def test_refused_child_changes_nothing_and_is_explained(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    outcome = round_tasks.apply_decision.fn(config, finished(promote=False))
    assert not outcome.changed and "refused" in outcome.reason
    assert current_model(open_storage(config)) is None


def test_report_is_written_unless_all_was_cached_and_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(storage: Storage, manifests: Any, config: Any, key: str, ran: Any) -> str:
        written.append(key)
        storage.write(key, b"<html>")
        return storage.uri(key)

    monkeypatch.setattr("ospo_core.report.html.write_report", write)
    config = small_round(tmp_path)
    for ran in ([], [], [StageName.EVALUATION]):
        address = round_tasks.report.fn(config, finished(promote=True), ran)
    assert len(written) == 2 and Path(address).read_bytes() == b"<html>"


def test_opening_a_round_tries_the_storage_and_finds_the_model(tmp_path: Path) -> None:
    model_files(tmp_path / "model")
    config = small_round(tmp_path)
    opened = round_tasks.open_round.fn(config)
    assert opened.model.source == str(tmp_path / "model")
    other = opened.model.model_copy(update={"digest": "1" * 64})
    assert round_tasks.open_round.fn(config, other).model == other
    assert len(round_ids(Storage(config.storage.root))) == 2
    (tmp_path / "blocked").write_text("a file", encoding="utf-8")
    with pytest.raises(StorageError):
        round_tasks.open_round.fn(small_round(tmp_path, storage={"root": str(tmp_path / "blocked" / "store")}))


def test_imported_pairs_that_are_not_there_are_missed_before_anything_is_recorded(tmp_path: Path) -> None:
    model_files(tmp_path / "model")
    training = {"imported_pairs": "0" * 64, "own_pairs": False}
    config = small_round(tmp_path, training=training)
    with pytest.raises(ConfigError, match=r"training\.imported_pairs.*ospo import-pairs"):
        round_tasks.open_round.fn(config)
    assert round_ids(open_storage(config)) == []
    assert round_tasks.open_round.fn(config, kind="evaluation").kind == "evaluation"
