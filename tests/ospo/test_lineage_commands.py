"""`ospo lineage` and `ospo cost` on a storage that holds two generations."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo import main
from ospo_core.artifacts.manifest import publish_manifest
from ospo_core.artifacts.storage import Storage
from tests.support.manifests import generation


@pytest.fixture
def root(tmp_path: Path) -> str:
    storage = Storage(str(tmp_path))
    for one in (*generation(1, "0" * 64), *generation(2, "1" * 64)):
        publish_manifest(storage, one)
    return f"storage.root={tmp_path}"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    return capsys.readouterr().out


def test_lineage_names_every_generation_and_its_stages(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "lineage", "222222", "--set", root).splitlines()
    words = [line.split()[0] for line in lines]
    assert words == ["model", "training", "pairs", "images", "prompts"] * 2 + ["model"]
    assert "222222222222" in lines[0] and "111111111111" in lines[5] and "not trained in this storage" in lines[-1]


def test_cost_adds_up_by_stage_and_by_model(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in printed(capsys, "cost", "--set", root).split("\n")
    ]
    figures = {row[0]: row[1:] for row in rows if len(row) == 8}
    assert figures["prompts"] == ["2", "30", "3", "6", "2", "6", "100"]
    assert figures["2" * 12] == ["4", "80", "8", "16", "4", "12", "200"]
