"""Checkpoints: whole, resumable, the last two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ospo_core.errors import TrainingError
from ospo_core.training.checkpoint import CheckpointStore
from ospo_core.training.collapse import CollapseAlarm

ALARM = CollapseAlarm(drop=1.0, patience=3, baseline=-2.5, steps_below=1)


def make(folder: Path, *steps: int, identity: str = "job") -> tuple[CheckpointStore, nn.Parameter, torch.optim.AdamW]:
    """Save checkpoints of a parameter whose value is the step."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    store = CheckpointStore(folder, identity)
    for step in steps:
        parameter.grad = torch.ones(2)
        optimizer.step()
        with torch.no_grad():
            parameter.fill_(step)
        store.save(step, {"weights": parameter}, optimizer, ALARM)
    return store, parameter, optimizer


def test_the_newest_is_loaded_with_all_its_state(tmp_path: Path) -> None:
    store, parameter, optimizer = make(tmp_path, 9, 10)
    checkpoint = store.load_latest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.alarm) == (10, ALARM)
    assert checkpoint.adapter["weights"].equal(parameter)
    assert checkpoint.optimizer["state"][0]["exp_avg"].equal(optimizer.state_dict()["state"][0]["exp_avg"])


def test_only_the_last_two_are_kept_and_what_a_kill_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".step-000007.0.tmp").mkdir()
    make(tmp_path, 2, 4, 6)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-000004", "step-000006"]


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "nothing", "job").load_latest() is None


@pytest.mark.parametrize("file", ["adapter.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path: Path, file: str) -> None:
    store, _, _ = make(tmp_path, 2, 4)
    damaged = tmp_path / "step-000004" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2 :] = b""
    damaged.write_bytes(content)
    checkpoint = store.load_latest()
    assert checkpoint is not None and checkpoint.step == 2


def test_a_checkpoint_of_another_job_is_refused(tmp_path: Path) -> None:
    make(tmp_path, 2, identity="one")
    with pytest.raises(TrainingError, match="another training job"):
        CheckpointStore(tmp_path, "two").load_latest()


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"cannot be written.*storage\.scratch"):
        make(tmp_path / "file", 1)
