"""A small experiment by the real command line: two arms, one seed, two guidance scales, with the embedded model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

COMMON = """
title: A small comparison
profile: smoke
seeds: [0]
guidances: [1.0, 2.0]
arms: [sft, v2]
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("small")
    (folder / "experiment.yaml").write_text(COMMON, encoding="utf-8")
    (folder / "sft.yaml").write_text("title: only SFT\ntraining: {loss: {w_simpo: 0.0, w_cond: 0.0}}\n")
    (folder / "v2.yaml").write_text("title: all of it\n", encoding="utf-8")
    return folder


def run(folder: Path, api: str) -> subprocess.CompletedProcess[str]:
    options = [f"storage.root={folder}/runs", f"storage.scratch={folder}/scratch", "evaluation.limit=12"]
    options += ["training.steps=2", "model.device=cpu"]
    command = [sys.executable, "-m", "ospo", "experiments", "run", str(folder), "--out", str(folder / "out")]
    command += [word for option in options for word in ("--set", option)]
    return subprocess.run(command, env={**os.environ, "PREFECT_API_URL": api}, capture_output=True, text=True)


def test_an_experiment_ends_with_tables_and_is_cached(experiment: Path, prefect_server: str) -> None:
    first = run(experiment, prefect_server)
    assert first.returncode == 0, first.stdout + first.stderr
    results = (experiment / "out" / "results.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in results.splitlines() if line.startswith("| ")]
    assert rows.count("base") == rows.count("only SFT") == rows.count("all of it") == 3
    assert "12 held-out prompts, seeds 0" in results and "2 steps" in results
    manifests = sorted(experiment.glob("runs/*/*/manifest.json"))
    assert len([path for path in manifests if path.parts[-3] == "prompts"]) == 1  # arms share what they leave alike
    assert len([path for path in manifests if path.parts[-3] == "training"]) == 2

    again = run(experiment, prefect_server)
    assert again.returncode == 0 and (experiment / "out" / "results.md").read_text(encoding="utf-8") == results
    assert sorted(experiment.glob("runs/*/*/manifest.json")) == manifests
    assert "to do" not in again.stderr
