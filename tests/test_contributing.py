"""The worked examples of CONTRIBUTING.md do what the text says, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ospo_core.config.sections import SelectionConfig
from ospo_core.selection import rules
from tests.support.candidates import BASE, NEGATIVE, image, select_pair
from tests.support.simple_rules import Dropped, Selected

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> SelectionConfig:
    """A configuration that asks for the example rule, which is entered in `RULES` as the guide says."""
    [code] = re.findall(r"^```python\n(def \w+\(prompts: Prompts,.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = dict(vars(rules))
    exec(code, namespace)
    name = code.removeprefix("def ").partition("(")[0]
    monkeypatch.setitem(rules.RULES, name, namespace[name])
    return SelectionConfig().model_copy(update={"rule": name})


def test_the_example_rule_pairs_the_best_image_with_the_worst(config: SelectionConfig) -> None:
    best, worst = image(0, BASE, [0.9, 0.9]), image(1, NEGATIVE, [-0.9, -0.9])
    others = [image(1, BASE, [0.8, 0.8]), image(0, NEGATIVE, [0.8, -0.8]), image(2, NEGATIVE, [0.9, 0.8])]
    pair = select_pair([best, worst, *others], [0, 1, 2], config)
    assert isinstance(pair, Selected)
    assert (pair.chosen, pair.rejected, pair.negative_variant) == (best, worst, 0)


def test_the_example_rule_counts_what_it_drops(config: SelectionConfig) -> None:
    good, not_bad = image(0, BASE, [0.9]), image(0, NEGATIVE, [0.4])
    assert select_pair([good, not_bad], [0, 1, 2], config) == Dropped(rules.NO_REJECTED_CANDIDATE)


ROUND = """
import json, sys
from pathlib import Path
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.model_ref import ModelRef
from tests.support.rounds import ScriptedResources, run_stages, small_round
from tests.support.tiny_janus import make_tiny_janus

root = Path(sys.argv[1])
make_tiny_janus(root / "model")
model = ModelRef(digest=model_digest(root / "model"), source=str(root / "model"))
found = {}
for blank_below in sys.argv[2:]:
    config = small_round(root, contrast={"blank_below": float(blank_below)})
    made = run_stages(config, ScriptedResources(), StageName.CONTRAST, model)[StageName.CONTRAST]
    found[blank_below] = [list(STAGES), made.rows, made.drops, made.items_in]
sys.stdout.write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def with_example_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of ospo_core to which the example stage was added as the guide says."""
    copy = tmp_path_factory.mktemp("guide")
    shutil.copytree(ROOT / "ospo_core", copy / "ospo_core", ignore=shutil.ignore_patterns("__pycache__"))
    for block in re.findall(r"^```diff\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL):
        name = re.search(r"^\+\+\+ b/(.*)$", block, re.MULTILINE)
        assert name is not None
        apply_hunks(copy / name[1], block.split("@@\n")[1:])
    [stage] = re.findall(r"^```python\n(\"\"\"Stage `contrast`.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    (copy / "ospo_core" / "stages" / "contrast.py").write_text(stage, encoding="utf-8")
    return copy


def apply_hunks(path: Path, hunks: list[str]) -> None:
    """Apply hunks without line numbers; the lines around each must stand in the file exactly once."""
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line.startswith(" "))
        after = "".join(line[1:] if line.strip() else line for line in lines)
        assert text.count(before) == 1, f"{before!r} in {path.name}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def found(with_example_stage: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a round with the example stage makes of two thresholds of `contrast.blank_below`."""
    folder: Path = tmp_path_factory.mktemp("round")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (with_example_stage, ROOT)))}
    command = [sys.executable, "-c", ROUND, str(folder), "0", "256"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize(("blank_below", "kept"), [("0", True), ("256", False)])
def test_the_example_stage_runs_in_its_place(found: dict[str, Any], blank_below: str, kept: bool) -> None:
    stages, rows, drops, items_in = found[blank_below]
    assert stages[3:6] == ["images", "contrast", "scores"]
    assert (rows, drops) == ((items_in, {}) if kept else (0, {"blank": items_in})) and items_in > 0
