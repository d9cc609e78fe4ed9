"""A training process whose disk is full says so, whatever library meets it; it goes on when there is space."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ospo_core.errors import TrainingError
from ospo_core.training.job import JobFiles
from ospo_core.training.process import read_result, run_training
from ospo_core.training.run import main
from tests.ospo_core.training.jobs import job

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("left_kib", [16, 48])
def test_a_full_disk_is_named_and_training_goes_on(
    model_folder: Path, pairs_path: Path, disk: Path, left_kib: int
) -> None:
    training = job(model_folder, pairs_path, disk / "out", steps=6, batch_size=1, accumulation=1, checkpoint_every=1)
    (disk / "filler").write_bytes(bytes((4096 - left_kib) * 1024))
    with pytest.raises(TrainingError, match="disk full") as caught:
        run_training(training, poll_s=0.05)
    assert str(disk / "out") in str(caught.value) and "Free space" in caught.value.remedy
    assert not JobFiles(training.out_dir).result.exists()
    (disk / "filler").unlink()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["--job", str(JobFiles(training.out_dir).job)]) == 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert read_result(0, JobFiles(training.out_dir)).steps == 6
