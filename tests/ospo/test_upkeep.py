"""`ospo rounds`, `ospo backfill`, `ospo gc` and the times of `ospo plan`, on a round of two stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ospo import main
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds.records import round_ids
from tests.support.fake_stages import NumbersStage, two_stages_only
from tests.support.rounds import model_files, small_round

pytestmark = pytest.mark.usefixtures("prefect_server")
Ospo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def numbers() -> Iterator[NumbersStage]:
    with two_stages_only() as stage:
        yield stage


@pytest.fixture
def ospo(tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: NumbersStage) -> Ospo:
    """Run a command with the small round's profile; give exit code, standard output and standard error."""
    model_files(tmp_path / "model")
    profile = tmp_path / "small.yaml"
    profile.write_text(small_round(tmp_path).model_dump_json(), encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--profile", str(profile)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_a_round_is_listed_done_over_and_cleaned_up(ospo: Ospo, numbers: NumbersStage, tmp_path: Path) -> None:
    assert ospo("stage", "perturbations")[0] == 0
    (identity,) = round_ids(Storage(str(tmp_path / "store")))
    code, out, _ = ospo("rounds")
    assert code == 0 and identity in out and "2 of 2 stages" in out
    assert "0 results, 0.0 MB would go" in ospo("gc", "--keep-hours", "0")[1]

    numbers.offset = 5
    code, out, _ = ospo("backfill", "prompts", "--refresh", "--round", identity[:5])
    assert code == 0 and f"Round {identity}: out of date now: perturbations" in out, out
    assert "1 of 2 stages" in ospo("rounds")[1]
    code, out, _ = ospo("backfill", "prompts", "--cascade")
    assert code == 0 and "no later stage is out of date" in out

    code, out, _ = ospo("backfill", "perturbations", "--where", "item_id = 'item0'")
    assert code == 0 and "1 rows done over, 2 kept" in out

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
    ):
        code, out, err = ospo("backfill", *arguments)
        assert code == 2 and all(word in err for word in words) and "Traceback" not in err, err


def test_plan_says_how_long_by_past_results(ospo: Ospo) -> None:
    code, out, _ = ospo("plan")
    assert code == 0 and sum("no past result" in line for line in out.splitlines() if line.startswith("│")) == 2
    ospo("stage", "perturbations")
    assert "Nothing is to be computed" in ospo("plan")[1]
    code, out, _ = ospo("plan", "--set", "seed=3")
    assert code == 0 and out.count("about 0.") == 2 and "of work; starting" in out
