"""What no round refers to is found and removed; what one refers to, or was made from, stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ospo_core.artifacts.manifest import Manifest, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import publish_shard
from ospo_core.errors import DamagedArtifactError, StageError, StorageError
from ospo_core.rounds import Round
from ospo_core.rounds.garbage import find_garbage, remove
from ospo_core.rounds.lineage import all_manifests
from ospo_core.rounds.records import record_round
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.attempts import StageRecord, record_stage
from ospo_core.stages.model_ref import MERGED, ModelPointer, promote
from tests.support.fake_stages import NumbersStage
from tests.support.manifests import generation, made
from tests.support.rounds import bound, finished, made_up_model, small_round


def refer(storage: Storage, identity: str, manifests: list[Manifest]) -> None:
    for one in manifests:
        record_stage(storage, identity, StageRecord(stage=one.stage, fingerprint=one.fingerprint, base=one.fingerprint))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Two generations with models and reports; a round refers to the second one's pairs and training only."""
    config = small_round(tmp_path)
    storage = Storage(config.storage.root)
    record = record_round(Round(config, storage, made_up_model(config)))
    for number in (1, 2):
        for one in generation(number, "0" * 64):
            publish_manifest(storage, one)
        storage.write(f"models/{str(number) * 64}/config.json", b"{}")
        storage.write(f"reports/training-{number:064x}"[: len("reports/training-") + 16] + ".html", b"<p>")
    refer(storage, record.id, generation(2, "0" * 64)[2:])
    return storage


def keys(storage: Storage, keep_hours: float = 0.0, forgotten: tuple[str, ...] = ()) -> list[str]:
    return sorted(one.key for one in find_garbage(storage, keep_hours, forgotten))


FIRST = [f"{stage}/{1:064x}" for stage in ("images", "pairs", "prompts", "training")]


def test_results_that_no_round_names_or_was_made_from_are_found(storage: Storage) -> None:
    found = {one.key: one for one in find_garbage(storage, 0.0)}
    assert sorted(key for key in found if key.startswith(("images", "pairs", "prompts", "training"))) == FIRST
    assert f"models/{'1' * 64}" in found and f"models/{'2' * 64}" not in found
    first = found[FIRST[0]]
    assert (first.kind, first.why, first.files) == ("images", "no round refers to it", 1)
    assert first.size == len(storage.read(f"{FIRST[0]}/manifest.json"))


def test_leftovers_of_a_killed_run_are_found_with_their_temporary_files(storage: Storage, tmp_path: Path) -> None:
    storage.write("scores/abc/part-00000.json", b"{}")
    (tmp_path / "store" / "scores" / "abc" / "half.tmp").write_bytes(b"x")
    leftover = next(one for one in find_garbage(storage, 0.0) if one.key == "scores/abc")
    assert (leftover.why, leftover.files) == ("never finished", 2)


def test_notes_of_nightly_runs_go_when_they_are_old(storage: Storage, tmp_path: Path) -> None:
    note = "nightly/0190.json"
    storage.write(note, b"{}")
    assert note not in keys(storage, keep_hours=1.0)
    found = [one for one in find_garbage(storage, 0.0) if one.key == note]
    assert [(one.kind, one.why, one.files) for one in found] == [("nightly", "its flow run began long ago", 1)]
    assert remove(storage, found) == 1 and not storage.exists(note)


def test_what_was_written_lately_stays(storage: Storage, tmp_path: Path) -> None:
    assert keys(storage, keep_hours=1.0) == []
    old = time.time() - 7200
    os.utime(tmp_path / "store" / FIRST[0] / "manifest.json", (old, old))
    assert keys(storage, keep_hours=1.0) == [FIRST[0]]


def test_current_model_keeps_all_that_it_was_made_from(storage: Storage) -> None:
    evaluation = made(StageName.EVALUATION, 9, (), child="1" * 64, decision={"promote": True})
    publish_manifest(storage, evaluation)
    pointer = ModelPointer(
        digest="1" * 64,
        key=f"models/{'1' * 64}",
        parent="0" * 64,
        training=f"{1:064x}",
        evaluation=evaluation.fingerprint,
    )
    promote(storage, pointer)
    assert not set(FIRST) & set(keys(storage)) and evaluation.prefix not in keys(storage)


def test_removing_deletes_what_was_shown_and_leaves_the_rest_whole(storage: Storage) -> None:
    found = find_garbage(storage, 0.0)
    assert remove(storage, found) == sum(one.files for one in found)
    assert keys(storage) == []
    assert {one.rows for one in all_manifests(storage)} == {20}
    assert storage.exists(f"models/{'2' * 64}/config.json")


def test_forgotten_round_no_longer_counts_and_nothing_is_deleted_by_looking(storage: Storage) -> None:
    before = storage.list()
    identity = next(key.split("/")[1] for key in before if key.startswith("rounds/"))
    assert len(keys(storage, forgotten=(identity,))) > len(keys(storage))
    assert storage.list() == before


def test_storage_without_records_is_not_emptied(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    publish_manifest(storage, made(StageName.PROMPTS, 1))
    with pytest.raises(StageError, match="everything would be removed"):
        find_garbage(storage, 0.0)


def test_damaged_manifest_ends_the_search(storage: Storage) -> None:
    storage.write(f"{FIRST[0]}/manifest.json", b"{}")
    with pytest.raises(DamagedArtifactError, match=FIRST[0]):
        find_garbage(storage, 0.0)


def age(folder: Path, hours: float = 2.0) -> None:
    """Make all files below a folder older."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 3600 * hours,) * 2)


@pytest.mark.parametrize("published", [True, False])
def test_the_model_of_a_training_that_was_written_lately_stays(
    storage: Storage, tmp_path: Path, published: bool
) -> None:
    """Its folder is older than the age, since it was stored before the training was published."""
    folder = f"training/{1:064x}"
    if not published:
        storage.delete(f"{folder}/manifest.json")
        rows = table_from_rows("metrics", [])
        publish_shard(storage, folder, "part-00000", rows, extra={MERGED: f"models/{'1' * 64}"})
    age(tmp_path / "store" / "models")
    assert keys(storage, keep_hours=1.0) == []
    age(tmp_path / "store" / folder)
    assert keys(storage, keep_hours=1.0) == [f"models/{'1' * 64}", folder]


def test_what_is_written_to_between_looking_and_removing_stays(storage: Storage) -> None:
    found = find_garbage(storage, 0.0)
    used = next(one for one in found if one.key == FIRST[0])
    os.utime(str(storage.local_path(f"{used.key}/manifest.json")), (time.time() + 5,) * 2)
    remove(storage, found)
    assert storage.list("images") == [f"images/{1:064x}/manifest.json", f"images/{2:064x}/manifest.json"]


@pytest.mark.parametrize("name", ["nightly", "models", "reports", "images", f"images/{3:064x}"])
def test_a_link_in_the_storage_is_never_followed(storage: Storage, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside" / ("1" * 64)
    outside.mkdir(parents=True)
    (outside / "precious.json").write_bytes(b"{}")
    (outside.parent / "precious.json").write_bytes(b"{}")
    link = tmp_path / "store" / name
    if link.exists():
        link.rename(tmp_path / "moved")
    link.symlink_to(outside.parent)
    if "/" in name:
        assert remove(storage, find_garbage(storage, 0.0)) > 0
    else:
        with pytest.raises(StorageError, match=rf"store/{name}: is a symbolic link.*not followed"):
            find_garbage(storage, 0.0)
    assert link.is_symlink() and len(list(outside.parent.rglob("*.json"))) == 2


_RUN = """
import sys, time
from pathlib import Path
from tests.support.fake_stages import NumbersStage
from tests.support.rounds import bound, finished, small_round

root = Path(sys.argv[1])

def wait(spec):
    (root / f"computing-{spec.index}").touch()
    while spec.index == 1 and not (root / "go").exists():
        time.sleep(0.01)

print(finished(bound(NumbersStage(wait), small_round(root))).digest)
"""
_COLLECT = """
import sys
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds.garbage import find_garbage, remove

storage = Storage(sys.argv[1])
print(remove(storage, find_garbage(storage, float(sys.argv[2]))))
"""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("keep_hours", [1.0, 0.0])
def test_a_resumed_stage_keeps_its_shards_or_says_which_one_vanished(tmp_path: Path, keep_hours: float) -> None:
    """Three processes: one left a shard long ago, one computes the rest, one collects garbage meanwhile."""
    config = small_round(tmp_path)
    storage = Storage(config.storage.root)
    record_round(Round(config, storage, made_up_model(config)))
    left = bound(NumbersStage(), config)
    left.compute_shard(left.stage.shards(left)[0])
    age(tmp_path / "store")
    resumed = python(_RUN, str(tmp_path))
    while not (tmp_path / "computing-1").exists():
        assert resumed.poll() is None, resumed.communicate()
        time.sleep(0.01)
    deleted, problem = python(_COLLECT, config.storage.root, str(keep_hours)).communicate(timeout=60)
    (tmp_path / "go").touch()
    digest, errors = resumed.communicate(timeout=60)
    if keep_hours:
        assert (deleted, resumed.returncode) == ("0\n", 0), problem + errors
        assert not (tmp_path / "computing-0").exists(), "the shard that was left is found"
    else:
        assert resumed.returncode and "shard part-00000 was deleted while its stage was running" in errors
        assert left.find() is None
        digest, errors = python(_RUN, str(tmp_path)).communicate(timeout=60)
        assert (tmp_path / "computing-0").exists(), "the shard that vanished is computed anew"
    found = left.find()
    assert found is not None and digest.strip() == found.digest, errors
    assert not storage.exists(left.claim)
    elsewhere = small_round(tmp_path, storage={"root": str(tmp_path / "elsewhere")})
    assert found.digest == finished(bound(NumbersStage(), elsewhere)).digest
