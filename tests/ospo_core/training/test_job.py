"""The identity of a job."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.ospo_core.training.jobs import job, write_pairs


def test_places_and_checkpoint_interval_do_not_count(tmp_path: Path, pairs_path: Path) -> None:
    copied = Path(shutil.copy(pairs_path, tmp_path / "copy.parquet"))
    one = job(tmp_path / "a", pairs_path, tmp_path / "x", checkpoint_every=2)
    other = job(tmp_path / "b", copied, tmp_path / "y", checkpoint_every=7)
    assert one.identity("model") == other.identity("model")


def test_pairs_options_seed_and_model_count(tmp_path: Path, pairs_path: Path) -> None:
    fewer = write_pairs(tmp_path / "fewer.parquet", count=3)
    identities = {
        job(tmp_path, pairs_path, tmp_path).identity("model"),
        job(tmp_path, fewer, tmp_path).identity("model"),
        job(tmp_path, pairs_path, tmp_path, learning_rate=2e-5).identity("model"),
        job(tmp_path, pairs_path, tmp_path, seed=4).identity("model"),
        job(tmp_path, pairs_path, tmp_path).identity("other model"),
    }
    assert len(identities) == 5


def test_a_job_survives_its_file(tmp_path: Path, pairs_path: Path) -> None:
    one = job(tmp_path, pairs_path, tmp_path)
    assert type(one).model_validate_json(one.model_dump_json()) == one
