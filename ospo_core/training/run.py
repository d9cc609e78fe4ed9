"""The training process: `python -m ospo_core.training.run --job job.json`, alone or under `accelerate launch`.

Exit codes: 0 done, `result.json` written; 74 the disk is full; 75 stopped by SIGTERM or because the parent ended, with
a checkpoint; 1 failed, with `error.json` if the failure is an expected one. Started again, it resumes from its last
checkpoint.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ospo_core.errors import OspoError
from ospo_core.models.adapters import merge_adapter, save_adapter
from ospo_core.models.loading import load_model
from ospo_core.training.checkpoint import CheckpointStore
from ospo_core.training.collapse import CollapseError
from ospo_core.training.data import PairData
from ospo_core.training.distributed import Team, join_team
from ospo_core.training.job import EXIT_FULL, EXIT_STOPPED, JobFiles, TrainingJob, TrainingResult
from ospo_core.training.loop import Outcome, Trainer
from ospo_core.training.metrics import MetricsWriter, read_metrics
from ospo_core.training.policy import Policy, build_policy
from ospo_core.training.stopping import StopRequest

logger = logging.getLogger(__name__)

_LITTLE = 64 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that the command line names and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ospo_core.training.run", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="the training job, JSON")
    parser.add_argument("--follow-parent", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = StopRequest()
    stop.on_sigterm()
    if options.follow_parent:
        stop.on_orphaned()
    job = TrainingJob.model_validate_json(options.job.read_text(encoding="utf-8"))
    try:
        return 0 if run_job(job, stop) else EXIT_STOPPED
    except OspoError as error:
        logger.exception("training failed")
        if disk_is_full(error, job.out_dir):
            return EXIT_FULL
        _write_error(JobFiles(job.out_dir).error, error)
        return error.exit_code
    except Exception as error:  # torch and safetensors have their own errors for a full disk
        if not disk_is_full(error, job.out_dir):
            raise
        logger.exception("disk full")
        return EXIT_FULL


def disk_is_full(error: BaseException | None, folder: Path) -> bool:
    """Return whether `error` comes of a full disk: by its number or that of a cause, or as nothing more fits there."""
    chain = error
    while chain is not None:
        if getattr(chain, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
            return True
        chain = chain.__cause__ or chain.__context__
    writing = isinstance(error, OspoError | OSError | RuntimeError) or type(error).__name__ == "SafetensorError"
    return writing and shutil.disk_usage(folder).free < _LITTLE


def run_job(job: TrainingJob, stop: StopRequest) -> bool:
    """Train, save the adapter and the merged model, and write `result.json`; False if stopped before the end.

    Raises:
        ModelError: the model folder cannot be used.
        TrainingError: the pairs do not fit, the gradient is not finite, a checkpoint cannot be written.
        CollapseError: the model collapsed.
        StorageError: the adapter or the merged model cannot be written.
    """
    began, files = time.monotonic(), JobFiles(job.out_dir)
    files.error.unlink(missing_ok=True)
    files.heartbeat.write_text(str(os.getpid()), encoding="utf-8")
    team = join_team(job.model.device)
    loaded = load_model(job.model_folder, job.model.model_copy(update={"dtype": job.training.dtype}))
    identity = job.identity(loaded.digest)
    if _is_done(files, identity):
        return True
    pairs = PairData(job.pairs_path, loaded, job.training, job.seed)
    policy = build_policy(loaded, job.training, job.seed)
    trainer = Trainer(
        policy, pairs, job.training, job.seed, team, CheckpointStore(files.checkpoints, identity), loaded.device
    )
    resumed = trainer.resume()
    logger.info("%d pairs, step %d of %d, %d process(es)", len(pairs), resumed, job.training.steps, team.size)
    outcome = _train(trainer, files, team, resumed, stop)
    if outcome.finished and team.rank == 0:
        _publish(job, policy, outcome, identity, resumed, len(pairs), began)
    team.wait()
    return outcome.finished


def _train(trainer: Trainer, files: JobFiles, team: Team, resumed: int, stop: StopRequest) -> Outcome:
    """Run the loop; the first process writes the metrics and the heartbeat."""
    if team.rank:
        return trainer.run(on_step=lambda metrics: None, should_stop=stop)
    metrics = MetricsWriter(files.metrics, keep_until=resumed)
    try:
        return trainer.run(on_step=metrics.write, should_stop=stop, beat=files.heartbeat.touch)
    finally:
        metrics.close()


def _publish(
    job: TrainingJob, policy: Policy, outcome: Outcome, identity: str, resumed: int, pairs: int, began: float
) -> None:
    """Write the adapter, the merged model and, last, the result that says that both are whole."""
    files = JobFiles(job.out_dir)
    logger.info("merging after step %d", outcome.step)
    save_adapter(policy.adapted, files.adapter)
    files.heartbeat.touch()
    merge_adapter(job.model_folder, files.adapter, files.merged)
    result = TrainingResult(
        identity=identity,
        steps=outcome.step,
        resumed_from=resumed,
        pairs=pairs,
        seconds=time.monotonic() - began,
        adapter=files.adapter,
        merged=files.merged,
        metrics=outcome.metrics or read_metrics(files.metrics)[-1],
    )
    _write_whole(files.result, result.model_dump_json(indent=1))


def _is_done(files: JobFiles, identity: str) -> bool:
    """Tell whether this very job was finished before."""
    if not files.result.exists() or not files.merged.is_dir():
        return False
    return TrainingResult.model_validate_json(files.result.read_text(encoding="utf-8")).identity == identity


def _write_error(path: Path, error: OspoError) -> None:
    """Leave an expected failure for the parent to raise again."""
    content = {
        "collapsed": isinstance(error, CollapseError),
        "problem": error.problem,
        "field": error.field,
        "value": None if error.value is None else repr(error.value),
        "remedy": error.remedy,
    }
    _write_whole(path, json.dumps(content))


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


if __name__ == "__main__":
    sys.exit(main())
