"""A small experiment as the command line runs it: two arms, one seed, two guidance scales, with the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

Ospo = Callable[..., tuple[int, str, str]]

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


def arguments(folder: Path) -> list[str]:
    options = [f"storage.root={folder}/runs", f"storage.scratch={folder}/scratch", "evaluation.limit=12"]
    options += ["training.steps=2", "model.device=cpu", "prompts.quotas={color_1: 4, spatial_2d: 4}"]
    command = ["experiments", "run", str(folder), "--out", str(folder / "out")]
    return command + [word for option in options for word in ("--set", option)]


def test_an_experiment_ends_with_tables_and_is_cached(experiment: Path, run: Ospo, prefect_server: str) -> None:
    code, out, err = run(*arguments(experiment))
    assert code == 0, out + err
    results = (experiment / "out" / "results.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in results.splitlines() if line.startswith("| ")]
    assert rows.count("base") == rows.count("only SFT") == rows.count("all of it") == 3
    assert "12 held-out prompts, seeds 0" in results and "2 steps" in results
    manifests = sorted(experiment.glob("runs/*/*/manifest.json"))
    assert len([path for path in manifests if path.parts[-3] == "prompts"]) == 1  # arms share what they leave alike
    assert len([path for path in manifests if path.parts[-3] == "training"]) == 2

    code, out, err = run(*arguments(experiment))
    assert code == 0 and (experiment / "out" / "results.md").read_text(encoding="utf-8") == results, out + err
    assert sorted(experiment.glob("runs/*/*/manifest.json")) == manifests
    assert "to do" not in err
