"""A really full disk, and flipped bytes: a clear error, and afterwards the same content as if nothing had been."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.round import RoundResult, self_improvement_round
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import DamagedArtifactError, OspoError
from ospo_core.schema import StageName
from ospo_core.stages.run import content_of
from tasks.stage_tasks import compute_shard
from tests.support.rounds import small_round
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus
from tests.support.verification import damage

DISK_KIB, LEFT_KIB = 8192, 48
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Calm:
    """An undisturbed round up to training, and how to make others like it."""

    root: Path
    engine: dict[str, str]
    config: RoundConfig
    result: RoundResult

    def like(self, **storage: str) -> RoundConfig:
        return small_round(self.root, engine=self.engine, storage=storage)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[Calm]:
    root: Path = tmp_path_factory.mktemp("calm")
    make_tiny_janus(root / "model")
    with pytest.MonkeyPatch.context() as patch, scripted_server() as address:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(compute_shard, "retries", 0)
        engine = {"kind": "endpoint", "base_url": address, "served_model": "rules"}
        config = small_round(root, engine=engine)
        yield Calm(root, engine, config, self_improvement_round(config, until=StageName.TRAINING))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB of which little is free, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    (folder / "filler").write_bytes(bytes((DISK_KIB - LEFT_KIB) * 1024))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def contents(result: RoundResult) -> dict[StageName, str]:
    return {name: content_of(manifest) for name, manifest in result.manifests.items()}


def test_a_full_disk_under_the_storage_is_named_and_the_round_goes_on_when_there_is_space(
    calm: Calm, disk: Path, tmp_path: Path
) -> None:
    config = calm.like(root=str(disk / "store"), scratch=str(tmp_path / "scratch"))
    with pytest.raises(OspoError, match="disk full") as caught:
        self_improvement_round(config, until=StageName.TRAINING)
    assert str(disk) in str(caught.value) and "Free space" in caught.value.remedy
    storage = Storage(config.storage.root)
    assert not [path for path in (disk / "store").rglob("*.tmp")]
    begun = len(storage.list())
    assert begun > 0
    (disk / "filler").unlink()
    result = self_improvement_round(config, until=StageName.TRAINING)
    assert contents(result) == contents(calm.result)
    assert [fault for manifest in result.manifests.values() for fault in damage(storage, manifest)] == []


def test_a_full_disk_under_the_training_is_named_and_it_goes_on_when_there_is_space(
    calm: Calm, disk: Path, tmp_path: Path
) -> None:
    before_training = shutil.ignore_patterns("training", "models")
    shutil.copytree(calm.config.storage.root, tmp_path / "store", ignore=before_training)
    config = calm.like(root=str(tmp_path / "store"), scratch=str(disk / "scratch"))
    with pytest.raises(OspoError, match="disk full") as caught:
        self_improvement_round(config, until=StageName.TRAINING)
    assert str(disk) in str(caught.value) and "storage.scratch" in caught.value.remedy
    assert Storage(config.storage.root).list("training") == Storage(config.storage.root).list("models") == []
    (disk / "filler").unlink()
    result = self_improvement_round(config, until=StageName.TRAINING)
    assert result.ran == (StageName.TRAINING,) and contents(result) == contents(calm.result)


@pytest.mark.parametrize(
    ("stage", "pattern", "unfinished"),
    [
        (StageName.QUESTIONS, "manifest.json", False),
        (StageName.IMAGES, "part-00001-*.parquet", False),
        (StageName.SCORES, "part-00000.json", True),
    ],
    ids=["manifest", "shard", "entry of an unfinished stage"],
)
def test_a_flipped_byte_is_named_and_refresh_gives_the_same_content(
    calm: Calm, tmp_path: Path, stage: StageName, pattern: str, unfinished: bool
) -> None:
    """The entry of a finished stage is not read any more, so it is flipped in a stage that lacks its manifest."""
    shutil.copytree(calm.config.storage.root, tmp_path / "store")
    config = calm.like(root=str(tmp_path / "store"), scratch=str(tmp_path / "scratch"))
    file = next((tmp_path / "store" / stage.value).glob(f"*/{pattern}"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    if unfinished:
        (file.parent / "manifest.json").unlink()
    with pytest.raises(DamagedArtifactError, match="--refresh") as caught:
        self_improvement_round(config, until=StageName.TRAINING)
    assert str(file) in str(caught.value)
    mended = self_improvement_round(config, refresh=[stage], until=StageName.TRAINING)
    assert contents(mended) == contents(calm.result)
    assert mended.ran == (stage,)
    assert self_improvement_round(config, until=StageName.TRAINING).ran == ()
