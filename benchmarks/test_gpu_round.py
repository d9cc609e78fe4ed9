"""The mini-round at a tiny size on the CPU, as on a machine without Prefect, vLLM and polars."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_round

ROOT = Path(__file__).parents[1]
ABSENT = ("prefect", "vllm", "polars")
TINY = "--size tiny --device cpu --images 2 --texts 2 --text-tokens 4 --batch-size 1 --accumulation 1 --steps 2"
RATES = {
    "text": "tokens_per_second",
    "images": "images_per_second",
    "questions": "questions_per_second",
    "log-probabilities": "sequences_per_second",
    "training and merge": "pairs_per_second",
}


def test_every_phase_gives_its_rate_and_its_peak_memory(tmp_path: Path) -> None:
    out = tmp_path / "round.json"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); "
        "from benchmarks.gpu_round import main; main()"  # importing a module that is None fails
    )
    command = [sys.executable, "-c", code, *TINY.split(), "--out", str(out), "--scratch", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    phases = {result["phase"]: result for result in report["phases"]}
    assert {result["status"] for result in phases.values()} == {"ok"}, done.stderr
    assert all(phases[name][rate] > 0 for name, rate in RATES.items())
    assert all(result["peak_gb"] > 0 for result in phases.values())
    assert phases["text"]["engine"] == "transformers"
    assert gpu_round.table(report) in done.stdout
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow_engine
def test_texts_are_written_by_vllm_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    mini = gpu_round.MiniRound("tiny", torch.device("cpu"), tmp_path, gpu_round.Amounts(texts=2, text_tokens=4))
    phases = dict(mini.phases)
    phases["checkpoint"]()
    figures = phases["text"]()
    assert figures["engine"] == "vllm" and 2 <= figures["tokens"] <= 8 and figures["tokens_per_second"] > 0


def test_a_phase_that_fails_says_why_in_its_place() -> None:
    def fail() -> gpu_round.Figures:
        raise torch.OutOfMemoryError("too much")

    failed = gpu_round._measured(fail, torch.device("cpu"))
    fine = {"status": "ok", "seconds": 2.0, "images_per_second": 1.5, "peak_gb": 3.25}
    report = {"phases": [{"size": "7b", "phase": "images", **fine}, {"size": "1b", "phase": "images", **failed}]}
    *_, row = gpu_round.table(report).splitlines()
    assert row.startswith("| images | 1.5 images/s | 3.2 GB | failed: OutOfMemoryError: too much | ")
