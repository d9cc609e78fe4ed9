"""The parent's side, with real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ospo_core.errors import TrainingError
from ospo_core.models.adapters import save_adapter
from ospo_core.training.job import EXIT_STOPPED, JobFiles, Metrics, TrainingJob, read_metrics
from ospo_core.training.policy import build_policy
from ospo_core.training.process import end_group, launch_command, read_result, run_training, visible_gpus
from ospo_core.training.run import run_job
from tests.ospo_core.training.jobs import job
from tests.support.tiny_janus import load_tiny_janus

ENDLESS = 1_000_000
PATIENCE = 240.0
"""Seconds after which a wait has failed: no limit of the project, only of the test."""
ROOT = Path(__file__).parents[3]
slow_start = pytest.mark.timeout(900)
"""For tests that start a few processes, which takes seconds each on an idle machine and much longer on a busy one."""


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is true; fail after a while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def start(training: TrainingJob, command: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start the process of a job as its parent does, in a group of its own; `command` replaces the parent's."""
    files = JobFiles(training.out_dir)
    training.out_dir.mkdir(parents=True, exist_ok=True)
    files.job.write_text(training.model_dump_json())
    with files.log.open("ab") as log:
        return subprocess.Popen(
            command or launch_command(training, gpus=0),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def signal_at_step(training: TrainingJob, step: int, number: signal.Signals) -> int:
    """Start a job, send its process a signal once it has made a step, and return the exit code."""
    process = start(training)
    try:
        wait_for(lambda: process.poll() is not None or steps_made(training) >= step)
        process.send_signal(number)
        return process.wait(PATIENCE)
    finally:
        end_group(process, 0.0)


def steps_made(training: TrainingJob) -> int:
    """Return the last step in the metrics of a job."""
    rows = read_metrics(JobFiles(training.out_dir).metrics)
    return int(rows[-1]["step"]) if rows else 0


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended (one that nobody has collected yet counts as ended)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@slow_start
def test_a_run_that_was_stopped_then_killed_ends_with_the_adapter_of_an_undisturbed_one(
    model_folder: Path, pairs_path: Path, tmp_path: Path
) -> None:
    """Equal up to rounding: now and then a process adds up in another order, and Adam makes that last digit larger.

    What such a run may differ by is a hundredth of the way that training went; a resume without the optimiser's state
    differs by a tenth, see `test_loop` for equality to the bit within one process.
    """
    options: dict[str, Any] = {"steps": 80, "checkpoint_every": 10, "batch_size": 2, "accumulation": 2}
    through = job(model_folder, pairs_path, tmp_path / "through", **options)
    run_training(through, lambda row: None, poll_s=0.05)  # a process too: libraries change how this one calculates
    begun = build_policy(load_tiny_janus(model_folder), through.training, through.seed)
    beginning = save_adapter(begun.adapted, tmp_path / "beginning")

    disturbed = job(model_folder, pairs_path, tmp_path / "disturbed", **options)
    checkpoints = JobFiles(disturbed.out_dir).checkpoints
    assert signal_at_step(disturbed, 13, signal.SIGTERM) == EXIT_STOPPED
    stopped = steps_made(disturbed)
    assert 13 <= stopped < 80
    assert (checkpoints / f"step-{stopped:06d}").is_dir()

    assert signal_at_step(disturbed, stopped + 12, signal.SIGKILL) == -signal.SIGKILL
    seen: list[Metrics] = []
    result = run_training(disturbed, seen.append, poll_s=0.05)
    assert 0 < result.resumed_from < 80
    assert [row["step"] for row in read_metrics(JobFiles(disturbed.out_dir).metrics)] == list(range(1, 81))
    assert [row["step"] for row in seen] == list(range(1, 81))
    theirs = JobFiles(through.out_dir).adapter
    assert parted(result.adapter, theirs) < 0.01 * parted(beginning, theirs)


def parted(one: Path, other: Path) -> float:
    """Return the distance of two adapters, as a norm over all weights."""
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return float(sum((ours[name] - theirs[name]).square().sum() for name in theirs)) ** 0.5


@slow_start
def test_cancelling_the_parent_stops_the_child_with_a_checkpoint(
    model_folder: Path, pairs_path: Path, tmp_path: Path
) -> None:
    training = job(
        model_folder, pairs_path, tmp_path, steps=ENDLESS, batch_size=1, accumulation=1, checkpoint_every=ENDLESS
    )
    files = JobFiles(tmp_path)
    pids: list[int] = []

    def cancel(metrics: Metrics) -> None:
        pids.append(int(files.heartbeat.read_text()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(training, cancel, poll_s=0.05)
    assert is_gone(pids[0])
    assert (files.checkpoints / f"step-{steps_made(training):06d}").is_dir()


@slow_start
def test_a_child_whose_parent_was_killed_stops_by_itself(model_folder: Path, pairs_path: Path, tmp_path: Path) -> None:
    training = job(
        model_folder, pairs_path, tmp_path, steps=ENDLESS, batch_size=1, accumulation=1, checkpoint_every=ENDLESS
    )
    (tmp_path / "given.json").write_text(training.model_dump_json())
    code = (
        "from pathlib import Path; from ospo_core.training.process import run_training; "
        "from ospo_core.training.job import TrainingJob; "
        f"run_training(TrainingJob.model_validate_json(Path({str(tmp_path / 'given.json')!r}).read_text()))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        wait_for(lambda: steps_made(training) > 0)
    finally:
        parent.kill()
        parent.wait()
    pid = int(JobFiles(tmp_path).heartbeat.read_text())
    wait_for(lambda: is_gone(pid), seconds=60)
    assert (JobFiles(tmp_path).checkpoints / f"step-{steps_made(training):06d}").is_dir()


def test_ending_a_process_ends_its_whole_group_also_what_ignores_the_request(tmp_path: Path) -> None:
    script = f"trap '' TERM; (trap '' TERM; echo $BASHPID > {tmp_path}/grandchild; exec sleep 600) & wait; sleep 600"
    process = subprocess.Popen(["bash", "-c", script], start_new_session=True)
    wait_for(lambda: (tmp_path / "grandchild").exists() and bool((tmp_path / "grandchild").read_text().strip()))
    grandchild = int((tmp_path / "grandchild").read_text())
    end_group(process, grace_s=0.2)
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: is_gone(grandchild), seconds=5)


def test_ending_sweeps_what_a_process_that_ended_left_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(["bash", "-c", f"sleep 600 & echo $! > {tmp_path}/left"], start_new_session=True)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    left = int((tmp_path / "left").read_text())
    assert not is_gone(left)
    end_group(process, grace_s=5.0)
    wait_for(lambda: is_gone(left), seconds=5)
    assert process.returncode == 0


def test_a_process_without_a_heartbeat_is_ended(model_folder: Path, pairs_path: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no heartbeat"):
        run_training(job(model_folder, pairs_path, tmp_path), heartbeat_timeout_s=0.0, poll_s=0.1, grace_s=0.0)


@pytest.mark.parametrize(("gpus", "accumulation", "processes"), [(0, 4, 1), (1, 4, 1), (4, 4, 4), (8, 4, 4), (3, 4, 2)])
def test_as_many_gpus_are_used_as_share_a_step_evenly(
    tmp_path: Path, gpus: int, accumulation: int, processes: int
) -> None:
    command = launch_command(job(tmp_path, tmp_path, tmp_path, accumulation=accumulation), gpus)
    assert (f"--num_processes={processes}" in command) == (processes > 1)
    assert ("accelerate.commands.launch" in command) == (processes > 1)
    assert command[command.index("ospo_core.training.run") - 1] == "-m"


@slow_start
def test_two_processes_that_recompute_stop_resume_and_train_the_adapter_of_one_that_does_not(
    model_folder: Path, pairs_path: Path, tmp_path: Path
) -> None:
    """Equal up to the order of additions. On CPUs torchrun starts the processes: `accelerate launch` would need MPI."""
    options: dict[str, Any] = {"steps": 16, "batch_size": 1, "accumulation": 4, "caption_dropout": 0.5}
    one = job(model_folder, pairs_path, tmp_path / "one", **options)
    two = job(model_folder, pairs_path, tmp_path / "two", gradient_checkpointing=True, **options)
    one.out_dir.mkdir()
    assert run_job(one, lambda: False)
    files = JobFiles(two.out_dir)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "ospo_core.training.run", "--job", str(files.job)]
    stopped = start(two, command)
    try:
        wait_for(lambda: stopped.poll() is not None or steps_made(two) >= 3)
    finally:
        end_group(stopped, 60.0)
    log = files.log.read_text()
    assert stopped.returncode != -signal.SIGKILL, log  # it ended by itself
    assert 3 <= steps_made(two) < 16, log
    assert not files.result.exists() and not files.merged.exists()

    resumed = start(two, command)
    try:
        assert resumed.wait(240) == 0, files.log.read_text()
    finally:
        end_group(resumed, 0.0)
    assert "2 process(es), activations recomputed" in files.log.read_text()
    assert read_result(0, files).resumed_from >= 3
    ours, theirs = JobFiles(two.out_dir).adapter, JobFiles(one.out_dir).adapter
    adapter = load_file(theirs / "adapter_model.safetensors")
    way = float(sum(weights.square().sum() for name, weights in adapter.items() if "lora_B" in name)) ** 0.5
    assert parted(ours, theirs) < 0.01 * way  # B begins at zero
    merged, expected = (load_file(JobFiles(run.out_dir).merged / "model.safetensors") for run in (two, one))
    for name, weights in expected.items():
        torch.testing.assert_close(merged[name], weights, rtol=1e-2, atol=1e-3)
    figures = {"loss", "chosen_logprob", "grad_norm"}
    rows = (read_metrics(JobFiles(run.out_dir).metrics) for run in (two, one))
    for mine, his in zip(*rows, strict=True):
        close = 1e-4 if mine["step"] <= 3 else 1e-2  # what is left of the order of additions grows with the steps
        assert {key: mine[key] for key in figures} == pytest.approx({key: his[key] for key in figures}, rel=close)


def test_the_cpu_has_no_gpus() -> None:
    assert visible_gpus("cpu") == 0
