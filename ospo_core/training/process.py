"""The parent's side of training: start the process, follow it, and never leave it behind.

The child leads a process group of its own. Whatever ends the parent's call, even if it is not an `Exception` (a
cancelled task, Ctrl-C), first asks the whole group to stop and, after a grace period, kills it. If the parent itself is
killed, the child sees the end of its standard input and stops by itself.

Own code because `accelerate launch` and torchrun end their workers, but nothing ends them if their own parent dies.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import ospo_core
from ospo_core.errors import TrainingError
from ospo_core.training.collapse import CollapseError
from ospo_core.training.job import EXIT_FULL, EXIT_STOPPED, JobFiles, Metrics, TrainingJob, TrainingResult, read_metrics
from ospo_core.training.lock import lock_descriptors

logger = logging.getLogger(__name__)

GRACE_S = 20.0
"""Less than the 30 s after which Prefect's worker kills a cancelled flow run, so that no training outlives its run."""


def run_training(
    job: TrainingJob,
    on_metrics: Callable[[Metrics], None] = lambda metrics: None,
    *,
    grace_s: float = GRACE_S,
    poll_s: float = 0.5,
    heartbeat_timeout_s: float = 1800.0,
) -> TrainingResult:
    """Train in a process of its own, resuming from the last checkpoint in `job.out_dir`, and return its result.

    Args:
        job: what to train.
        on_metrics: receives every step's metrics, in order; a resumed run reports its earlier steps first.
        grace_s: seconds between asking the process to stop and killing it.
        poll_s: seconds between two looks at the process.
        heartbeat_timeout_s: seconds without a heartbeat after which the process is ended.

    Raises:
        TrainingError: the process failed, was stopped, or lost its heartbeat; the same job resumes on the next call.
        CollapseError: the model collapsed; the next call would collapse again.
    """
    files = JobFiles(job.out_dir)
    job.out_dir.mkdir(parents=True, exist_ok=True)
    files.job.write_text(job.model_dump_json(indent=1), encoding="utf-8")
    files.error.unlink(missing_ok=True)
    files.heartbeat.touch()
    seen = 0

    def report() -> None:
        nonlocal seen
        for metrics in read_metrics(files.metrics, after=seen):
            seen = int(metrics["step"])
            on_metrics(metrics)

    process = _start(launch_command(job, visible_gpus(job.model.device)), files.log, lock_descriptors(job.out_dir))
    try:
        while _is_running(process):
            time.sleep(poll_s)
            report()
            silent = time.time() - files.heartbeat.stat().st_mtime
            if silent > heartbeat_timeout_s:
                raise TrainingError(
                    f"the training process had no heartbeat for {silent:.0f} s",
                    field=str(files.log),
                    remedy="Read that log; the next run resumes from the last checkpoint",
                )
    finally:
        end_group(process, grace_s)
    report()
    return read_result(process.returncode, files)


def launch_command(job: TrainingJob, gpus: int) -> list[str]:
    """Return the command that trains on `gpus` GPUs: `accelerate launch` for several, plain Python otherwise.

    It uses as many of the GPUs as can share the forward passes of a step (`training.accumulation`) evenly.
    """
    entry = ["-m", "ospo_core.training.run", "--job", str(JobFiles(job.out_dir).job), "--follow-parent"]
    processes = training_processes(gpus, job.training.accumulation)
    if processes < gpus:
        accumulation = job.training.accumulation
        logger.warning("using %d of %d GPUs: more cannot share an accumulation of %d", processes, gpus, accumulation)
    if processes == 1:
        return [sys.executable, *entry]
    options = ["--multi_gpu", "--num_machines=1", f"--num_processes={processes}", "--main_process_port=0"]
    plain = ["--mixed_precision=no", "--dynamo_backend=no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *plain, *entry]


def training_processes(gpus: int, accumulation: int) -> int:
    """Return how many processes train on `gpus` GPUs: the largest number that shares a step's passes evenly."""
    return max((n for n in range(1, gpus + 1) if accumulation % n == 0), default=1)


def visible_gpus(device: str) -> int:
    """Return how many GPUs training may use; none if `device` is `cpu`."""
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def end_group(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask a process and its whole group to stop, and kill what is left after `grace_s` seconds."""
    try:
        if process.stdin:
            process.stdin.close()
        if _is_running(process):
            _signal_group(process, signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while _is_running(process) and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def read_result(code: int, files: JobFiles) -> TrainingResult:
    """Return the result of a process that ended with exit code `code`.

    Raises:
        TrainingError: there is none; it says why, or how the process ended. CollapseError: the model collapsed.
    """
    if code == 0 and files.result.exists():
        return TrainingResult.model_validate_json(files.result.read_text(encoding="utf-8"))
    if files.error.exists():
        error = json.loads(files.error.read_text(encoding="utf-8"))
        kind = CollapseError if error.pop("collapsed") else TrainingError
        problem, shown = error.pop("problem"), error.pop("value")
        raise kind(f"{problem} (got {shown})" if shown else problem, **error)
    if code == EXIT_FULL:
        raise TrainingError(
            "disk full: training cannot write its checkpoints and results",
            field=str(files.job.parent),
            remedy="Free space there, or choose another storage.scratch; the next run resumes from the last checkpoint",
        )
    if code == EXIT_STOPPED:
        raise TrainingError("training was stopped", remedy="The next run resumes from its checkpoint")
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    tail = files.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise TrainingError(
        f"the training process {ended}; the end of its log:\n{tail}\n",
        field=str(files.log),
        remedy="The next run resumes from the last checkpoint",
    )


def _start(command: list[str], log: Path, descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start the child as leader of a new process group, with this very package, even if that is not installed."""
    root = str(Path(ospo_core.__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            pass_fds=descriptors,
        )


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process still runs, without reaping it: its id stays in use until its group is ended."""
    if process.returncode is not None:
        return False
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the group of a process that has not been reaped."""
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, number)
