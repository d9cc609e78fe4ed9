"""Commands on rounds of two stages: list, recompute, clean up, estimate; lineage and cost of two generations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ospo_core.artifacts.manifest import publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds.records import round_ids
from tests.support.fake_stages import NumbersStage
from tests.support.manifests import generation

Ospo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ospo(run: Ospo, profile: str, numbers: NumbersStage, prefect_server: str) -> Ospo:
    """Run a command with the small round's profile."""

    def run_with_profile(*arguments: str) -> tuple[int, str, str]:
        return run(*arguments, "--profile", profile)

    return run_with_profile


def test_a_round_is_listed_done_over_and_cleaned_up(ospo: Ospo, numbers: NumbersStage, tmp_path: Path) -> None:
    assert ospo("stage", "perturbations")[0] == 0
    (identity,) = round_ids(Storage(str(tmp_path / "store")))
    code, out, _ = ospo("rounds")
    assert code == 0 and identity in out and "2 of 2 stages" in out
    assert "Would be deleted: 0 results, 0.0 MB" in ospo("gc", "--keep-hours", "0")[1]

    numbers.offset = 5
    code, out, _ = ospo("backfill", "prompts", "--refresh", "--round", identity[:5])
    assert code == 0 and f"Round {identity}: now out of date: perturbations" in out, out
    assert "1 of 2 stages" in ospo("rounds")[1]
    code, out, _ = ospo("backfill", "prompts", "--cascade")
    assert code == 0 and "no later stage is out of date" in out

    code, out, _ = ospo("backfill", "perturbations", "--where", "item_id = 'item0'")
    assert code == 0 and "1 rows recomputed, 2 kept" in out

    kept = len(Storage(str(tmp_path / "store")).list())
    assert "3 results" in ospo("gc", "--keep-hours", "0")[1]
    assert len(Storage(str(tmp_path / "store")).list()) == kept, "looking deletes nothing"
    assert "3 results" in ospo("gc", "--keep-hours", "0", "--delete")[1]
    assert "0 results" in ospo("gc", "--keep-hours", "0")[1]
    code, out, _ = ospo("stage", "perturbations")
    assert code == 0 and out.count("cached") == 2, "what the round refers to is still there"

    code, out, _ = ospo("gc", "--keep-hours", "0", "--forget", identity[:6], "--delete")
    assert code == 0 and identity in out
    assert Storage(str(tmp_path / "store")).list() == []


def test_mistakes_are_one_message(ospo: Ospo) -> None:
    code, out, err = ospo("gc")
    assert code == 1 and "no round is recorded here" in err and out == ""
    ospo("stage", "perturbations")
    for arguments, words in (
        (["perturbations", "--where", "nope = 1"], ["where", "nope = 1", "item_id, category"]),
        (["prompts", "--where", "item_id = 'item0'"], ["where", "for some items only"]),
        (["prompts", "--round", "12"], ["round", "'12'", "at least 4 digits"]),
        (["prompts", "--change", "promts.x=1"], ["promts"]),
        (["prompts", "--change", "storage.root=s3://me:hush@bucket"], ["storage.root", "user name", "***@bucket"]),
    ):
        code, out, err = ospo("backfill", *arguments)
        assert code == 2 and all(word in err for word in words) and "Traceback" not in err, err
        assert "hush" not in err


def test_plan_says_how_long_by_past_results(ospo: Ospo) -> None:
    code, out, _ = ospo("plan")
    assert code == 0 and sum("unknown" in line for line in out.splitlines() if line.startswith("│")) == 2
    ospo("stage", "perturbations")
    assert "Everything is cached" in ospo("plan")[1]
    code, out, _ = ospo("plan", "--set", "seed=3")
    assert code == 0 and out.count("about 0.") == 2 and "of work, plus" in out


@pytest.fixture
def root(tmp_path: Path) -> str:
    storage = Storage(str(tmp_path))
    for one in (*generation(1, "0" * 64), *generation(2, "1" * 64)):
        publish_manifest(storage, one)
    return f"storage.root={tmp_path}"


def test_lineage_names_every_generation_and_its_stages(root: str, run: Ospo) -> None:
    lines = run("lineage", "222222", "--set", root)[1].splitlines()
    words = [line.split()[0] for line in lines]
    assert words == ["model", "training", "pairs", "images", "prompts"] * 2 + ["model"]
    assert "222222222222" in lines[0] and "111111111111" in lines[5] and "not trained in this storage" in lines[-1]


def test_cost_adds_up_by_stage_and_by_model(root: str, run: Ospo) -> None:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in run("cost", "--set", root)[1].splitlines()]
    figures = {row[0]: row[1:] for row in rows if len(row) == 8}
    assert figures["prompts"] == ["2", "30", "3", "6", "2", "6", "100"]
    assert figures["2" * 12] == ["4", "80", "8", "16", "4", "12", "200"]
