"""The child's side, called in this process."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import JanusForConditionalGeneration

from ospo_core.config.sections import LossConfig
from ospo_core.errors import TrainingError
from ospo_core.models.loading import load_model
from ospo_core.training.collapse import CollapseError
from ospo_core.training.job import EXIT_STOPPED, JobFiles, TrainingJob, TrainingResult, read_metrics
from ospo_core.training.process import read_result
from ospo_core.training.run import main, run_job, stop_on_sigterm
from tests.ospo_core.training.jobs import job, write_pairs


@pytest.fixture(autouse=True)
def _same_handler() -> Iterator[None]:
    """Put the handler of SIGTERM back, which a training process takes over."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def start(training: TrainingJob) -> int:
    """Run a job by its file and return the exit code."""
    files = JobFiles(training.out_dir)
    training.out_dir.mkdir(parents=True, exist_ok=True)
    files.job.write_text(training.model_dump_json())
    return main(["--job", str(files.job)])


def test_a_run_leaves_an_adapter_a_merged_model_metrics_and_a_result(
    model_folder: Path, pairs_path: Path, tmp_path: Path
) -> None:
    training = job(model_folder, pairs_path, tmp_path / "out", steps=2)
    files = JobFiles(training.out_dir)
    assert start(training) == 0
    result = read_result(0, files)
    assert (result.steps, result.resumed_from, result.pairs) == (2, 0, 12)
    assert [row["step"] for row in read_metrics(files.metrics)] == [1, 2]
    assert result.metrics == read_metrics(files.metrics)[-1]
    base = JanusForConditionalGeneration.from_pretrained(model_folder)
    layer = "model.language_model.layers.0.self_attn.q_proj.weight"
    before = base.state_dict()[layer].clone()
    assert PeftModel.from_pretrained(base, result.adapter).peft_config["default"].to_dict()["r"] == 4
    merged = load_model(result.merged, training.model)
    assert not merged.network.state_dict()[layer].equal(before)

    written = files.result.stat().st_mtime_ns
    assert start(training) == 0
    assert files.result.stat().st_mtime_ns == written  # the very same job is not done twice


def test_a_stop_before_the_end_writes_no_result(model_folder: Path, pairs_path: Path, tmp_path: Path) -> None:
    training = job(model_folder, pairs_path, tmp_path)
    stop = threading.Event()
    stop_on_sigterm(stop)
    signal.raise_signal(signal.SIGTERM)
    assert run_job(training, stop.is_set) is False
    assert not JobFiles(tmp_path).result.exists()
    with pytest.raises(TrainingError, match="stopped"):
        read_result(EXIT_STOPPED, JobFiles(tmp_path))


def test_an_expected_failure_reaches_the_parent_with_its_remedy(model_folder: Path, tmp_path: Path) -> None:
    training = job(model_folder, write_pairs(tmp_path / "p", count=0), tmp_path / "out")
    assert start(training) == 1
    with pytest.raises(TrainingError, match=r"pairs: there are no pairs .*Make more prompts") as caught:
        read_result(1, JobFiles(training.out_dir))
    assert not isinstance(caught.value, CollapseError)


def test_a_collapse_reaches_the_parent_as_such(model_folder: Path, pairs_path: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "loss": LossConfig(w_sft=0.0),
        "learning_rate": 0.3,
        "collapse_drop": 0.1,
        "collapse_patience": 1,
    }
    training = job(model_folder, pairs_path, tmp_path, steps=20, **options)
    assert start(training) == 1
    with pytest.raises(CollapseError):
        read_result(1, JobFiles(tmp_path))


def test_an_unexpected_end_shows_the_end_of_the_log(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.log.write_text("Traceback: it broke")
    with pytest.raises(TrainingError, match="it broke"):
        read_result(1, files)
    with pytest.raises(TrainingError, match="SIGKILL"):
        read_result(-9, files)


def test_a_result_of_another_job_does_not_count(model_folder: Path, pairs_path: Path, tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.merged.mkdir()
    stale = {"identity": "other", "steps": 9, "resumed_from": 0, "pairs": 1, "seconds": 1.0, "metrics": {}}
    files.result.write_text(json.dumps({**stale, "adapter": str(files.adapter), "merged": str(files.merged)}))
    assert start(job(model_folder, pairs_path, tmp_path, steps=1)) == 0
    assert TrainingResult.model_validate_json(files.result.read_text()).steps == 1
