"""The training process: `python -m ospo_core.training.run --job job.json`, one process or several (accelerate launch).

The adapter is merged once training is over: the other processes have ended then, the process group is closed and the
memory of the device is free.

Exit codes: 0 done, `result.json` written; 74 the disk is full; 75 stopped by SIGTERM or because the parent ended, with
a checkpoint; 1 failed, with `error.json` if the failure is an expected one. Started again, it resumes from its last
checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from ospo_core.artifacts.atomic_write import atomic_file
from ospo_core.artifacts.storage_errors import disk_problem
from ospo_core.errors import OspoError, TrainingError
from ospo_core.models.adapters import merge_adapter, save_adapter
from ospo_core.models.loading import load_model
from ospo_core.training.checkpoint import CheckpointStore
from ospo_core.training.collapse import CollapseError
from ospo_core.training.data import PairData
from ospo_core.training.job import (
    EXIT_FULL,
    EXIT_STOPPED,
    JobFiles,
    TrainingJob,
    TrainingResult,
    append_metrics,
    cut_metrics,
    read_metrics,
)
from ospo_core.training.loop import Trainer
from ospo_core.training.memory import device_memory, plan_passes
from ospo_core.training.policy import build_policy
from ospo_core.training.process import visible_gpus

logger = logging.getLogger(__name__)

_ORPHAN_GRACE_S = 120.0


def stop_on_sigterm(stop: threading.Event) -> None:
    """Make SIGTERM set `stop` (main thread only)."""
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())


def _stop_when_orphaned(stop: threading.Event) -> None:
    """Set `stop` at the end of standard input, and end the process if it has not stopped by itself two minutes later.

    The parent holds the other end and never writes, so standard input ends when the parent does, for whatever reason.
    """
    while os.read(sys.stdin.fileno(), 1024):
        continue
    stop.set()
    time.sleep(_ORPHAN_GRACE_S)
    os._exit(EXIT_STOPPED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job named on the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ospo_core.training.run", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="the training job (JSON)")
    parser.add_argument("--follow-parent", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    stop_on_sigterm(stop)
    if options.follow_parent:
        threading.Thread(target=_stop_when_orphaned, args=(stop,), name="parent watch", daemon=True).start()
    job = TrainingJob.model_validate_json(options.job.read_text(encoding="utf-8"))
    try:
        return 0 if run_job(job, stop.is_set) else EXIT_STOPPED
    except OspoError as error:
        logger.exception("training failed")
        if disk_problem(error, job.out_dir) == "disk full":
            return EXIT_FULL
        content = {
            "collapsed": isinstance(error, CollapseError),
            "problem": error.problem,
            "field": error.field,
            "value": None if error.value is None else repr(error.value),
            "remedy": error.remedy,
        }
        _write(JobFiles(job.out_dir).error, json.dumps(content))
        return error.exit_code
    except Exception as error:  # torch and safetensors raise errors of their own if the disk is full
        if disk_problem(error, job.out_dir) != "disk full":
            raise
        logger.exception("disk full")
        return EXIT_FULL


def run_job(job: TrainingJob, should_stop: Callable[[], bool]) -> bool:
    """Train, save the adapter and the merged model, and write `result.json`; False if stopped before the end.

    Of several processes, the main one alone saves and merges, and the others return at once.

    Raises:
        ModelError: the model folder cannot be used.
        TrainingError: the pairs do not fit, the device has too little memory, the gradient is not finite, a checkpoint
            cannot be written.
        CollapseError: the model collapsed.
        StorageError: the adapter or the merged model cannot be written.
    """
    began, files, identity = time.monotonic(), JobFiles(job.out_dir), job.identity()
    files.error.unlink(missing_ok=True)
    files.heartbeat.write_text(str(os.getpid()), encoding="utf-8")
    if files.result.exists() and files.merged.is_dir():
        done = TrainingResult.model_validate_json(files.result.read_text(encoding="utf-8"))
        if done.identity == identity:
            return True
    accelerator = Accelerator(cpu=visible_gpus(job.model.device) == 0, mixed_precision="no")
    main, device = accelerator.is_main_process, accelerator.device
    try:
        result = _train(job, files, identity, accelerator, should_stop)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory: {error}",
            field="training.batch_size",
            value=job.training.batch_size,
            remedy="Lower it and raise training.accumulation by the same factor; the next run resumes from the last "
            "checkpoint",
        ) from error
    accelerator.wait_for_everyone()  # every process has made the last step
    accelerator.free_memory()
    accelerator.end_training()
    if result is None or not main:
        return result is not None
    logger.info("merging after step %d", result.steps)
    files.heartbeat.touch()
    merge_adapter(job.model_folder, files.adapter, files.merged, device)
    result = result.model_copy(update={"seconds": time.monotonic() - began})
    _write(files.result, result.model_dump_json(indent=1))  # last: it says that all the others are complete
    return True


def _train(
    job: TrainingJob, files: JobFiles, identity: str, accelerator: Accelerator, should_stop: Callable[[], bool]
) -> TrainingResult | None:
    """Train and save the adapter; None if stopped before the end. Nothing of the model outlives the call."""
    began = time.monotonic()
    loaded = load_model(job.model_folder, job.model.model_copy(update={"dtype": job.training.dtype}))
    plan = plan_passes(job.training, loaded, device_memory(loaded.device))
    pairs = PairData(job.pairs_path, loaded, job.training, job.seed, plan.pairs)
    policy = build_policy(loaded, job.training, job.seed, plan.recompute)
    store = CheckpointStore(files.checkpoints, identity)
    trainer = Trainer(policy, pairs, job.training, job.seed, accelerator, store, loaded.device)
    resumed = trainer.resume()
    logger.info(
        "%d pairs, step %d of %d, %d process(es), activations %s, %d pairs per pass",
        len(pairs),
        resumed,
        job.training.steps,
        accelerator.num_processes,
        "recomputed" if plan.recompute else "kept",
        plan.pairs,
    )
    if accelerator.is_main_process:
        cut_metrics(files.metrics, resumed)
        outcome = trainer.run(partial(append_metrics, files.metrics), should_stop, beat=files.heartbeat.touch)
    else:
        outcome = trainer.run(lambda metrics: None, should_stop)
    if not outcome.finished:
        return None
    metrics = outcome.metrics
    if accelerator.is_main_process:
        save_adapter(policy.adapted, files.adapter)
        metrics = metrics or read_metrics(files.metrics)[-1]
    return TrainingResult(
        identity=identity,
        steps=outcome.step,
        resumed_from=resumed,
        pairs=len(pairs),
        seconds=time.monotonic() - began,
        peak_memory=_peak_memory(loaded.device),
        adapter=files.adapter,
        merged=files.merged,
        metrics=metrics,
    )


def _peak_memory(device: torch.device) -> int:
    """Return the most bytes that were in use: by tensors on a GPU, by the whole process otherwise."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
