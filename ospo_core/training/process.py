"""The parent's side of training: start the process, follow it, and never leave it behind.

The child leads a process group of its own. Whatever ends the parent's call, also what is not an `Exception` (a
cancelled task, Ctrl-C), first asks the whole group to stop and, after a grace period, kills it. If the parent itself is
killed, the child sees the end of its standard input and stops by itself.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ospo_core
from ospo_core.errors import TrainingError
from ospo_core.training.collapse import CollapseError
from ospo_core.training.job import EXIT_FULL, EXIT_STOPPED, JobFiles, TrainingJob, TrainingResult
from ospo_core.training.lock import inherited
from ospo_core.training.metrics import Metrics, MetricsFollower

logger = logging.getLogger(__name__)

GRACE_S = 20.0
"""Less than the 30 s after which Prefect's worker kills a cancelled flow run, so that no training outlives its run."""

_MODULE = "ospo_core.training.run"
_LOG_TAIL = 2000


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
        on_metrics: gets every step's metrics, in order; a resumed run reports its earlier steps first.
        grace_s: time between asking the process to stop and killing it, seconds.
        poll_s: how often the process is looked at, seconds.
        heartbeat_timeout_s: a process without a sign of life for this long is ended, seconds.

    Raises:
        TrainingError: the process failed, was stopped, or gave no sign of life; the same job resumes on the next call.
        CollapseError: the model collapsed; the next call would collapse again.
    """
    files = JobFiles(job.out_dir)
    job.out_dir.mkdir(parents=True, exist_ok=True)
    files.job.write_text(job.model_dump_json(indent=1), encoding="utf-8")
    files.error.unlink(missing_ok=True)
    files.heartbeat.touch()
    follower = MetricsFollower(files.metrics)
    process = _start(launch_command(job, visible_gpus(job.model.device)), files.log, inherited(job.out_dir))
    try:
        while _is_running(process):
            time.sleep(poll_s)
            _report(follower, on_metrics)
            _check_alive(files, heartbeat_timeout_s)
    finally:
        end_group(process, grace_s)
    _report(follower, on_metrics)
    return read_result(process.returncode, files)


def launch_command(job: TrainingJob, gpus: int) -> list[str]:
    """Return the command that trains on `gpus` GPUs: `accelerate launch` for several, plain Python otherwise.

    Of several GPUs as many are used as share the forward passes of a step (`training.accumulation`) evenly.
    """
    entry = ["-m", _MODULE, "--job", str(JobFiles(job.out_dir).job), "--follow-parent"]
    processes = training_processes(gpus, job.training.accumulation)
    if processes < gpus:
        why = "accelerate (pip install 'ospo[train]') is missing or cannot share"
        logger.warning("%d of %d GPUs: %s an accumulation of %d", processes, gpus, why, job.training.accumulation)
    if processes == 1:
        return [sys.executable, *entry]
    options = ["--multi_gpu", "--num_machines=1", f"--num_processes={processes}", "--main_process_port=0"]
    plain = ["--mixed_precision=no", "--dynamo_backend=no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *plain, *entry]


def training_processes(gpus: int, accumulation: int) -> int:
    """Return how many processes train on `gpus` GPUs: what shares a step's passes evenly, one without accelerate."""
    if importlib.util.find_spec("accelerate") is None:
        return 1
    return max((n for n in range(1, gpus + 1) if accumulation % n == 0), default=1)


def visible_gpus(device: str) -> int:
    """Return how many GPUs training may use; none if the configuration names the CPU."""
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def end_group(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a process and its whole group: ask, wait up to `grace_s` seconds, kill; does nothing to what has ended."""
    try:
        if process.stdin:
            process.stdin.close()
        if _is_running(process):
            _signal_group(process, signal.SIGTERM)
            _wait(process, grace_s)
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def read_result(code: int, files: JobFiles) -> TrainingResult:
    """Read the result of a process that ended with `code`.

    Raises:
        TrainingError: there is none: what the process left as its reason, or how it ended.
        CollapseError: the model collapsed.
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
    raise TrainingError(
        f"the training process {ended}; the end of its log:\n{_tail(files.log)}\n",
        field=str(files.log),
        remedy="The next run resumes from the last checkpoint",
    )


def _start(command: list[str], log: Path, descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start the child as leader of a new process group, its output appended to a log.

    The child finds this very package, also where it is not installed. Its threads are torch's choice unless
    OMP_NUM_THREADS says otherwise.
    """
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
    """Tell whether a process still runs, without collecting it: its id stays taken until its group is ended."""
    if process.returncode is not None:
        return False
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process to end, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while _is_running(process) and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the group that an uncollected process leads."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            logger.debug("process group %d has ended already", process.pid)


def _report(follower: MetricsFollower, on_metrics: Callable[[Metrics], None]) -> None:
    """Pass on what is new."""
    for metrics in follower.new():
        on_metrics(metrics)


def _check_alive(files: JobFiles, timeout_s: float) -> None:
    """Give up on a process that stands still.

    Raises:
        TrainingError: no sign of life for `timeout_s` seconds.
    """
    silent = time.time() - files.heartbeat.stat().st_mtime
    if silent > timeout_s:
        raise TrainingError(
            f"the training process gave no sign of life for {silent:.0f} s",
            field=str(files.log),
            remedy="Read that log; the next run resumes from the last checkpoint",
        )


def _tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
