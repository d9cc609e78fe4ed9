"""A whole small round that a benchmark decides: measured, decided, shown, and found again by the next round."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from flows.round import RoundResult, self_improvement_round
from ospo.browse.site import build_site
from ospo.output import show_plan, show_round
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError
from ospo_core.rounds import Round
from ospo_core.rounds.garbage import find_garbage
from ospo_core.rounds.plan import finished_round, plan_round
from ospo_core.rounds.records import read_record, round_ids, stage_records
from ospo_core.schema import StageName
from tests.support.rounds import small_round
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus

pytestmark = pytest.mark.timeout(600)

JUDGING = [("/people", ""), ("/judge", "/0")]

LINES = [
    '{"tag": "counting", "include": [{"class": "circle", "count": 1}], "prompt": "one circle"}',
    '{"tag": "colors", "include": [{"class": "star", "count": 1, "color": "red"}], "prompt": "a red star"}',
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("gate")
    make_tiny_janus(folder / "model")
    (folder / "evaluation_metadata.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scripted_server() as address:
        yield address


def gated(root: Path, address: str, **changes: Any) -> RoundConfig:
    section = {"name": "geneval", "prompts": str(root), "samples": 2, "detector": "embedded:shapes"}
    sections: dict[str, Any] = {
        "engine": {"kind": "endpoint", "base_url": address, "served_model": "rules"},
        "promotion": {"metric": "benchmark"},
        "benchmark": section,
    }
    return small_round(root, **{**sections, **changes})


@pytest.fixture(scope="module")
def done(root: Path, address: str, prefect_server: str) -> RoundResult:
    return self_improvement_round(gated(root, address))


@pytest.fixture(scope="module")
def storage(root: Path, done: RoundResult) -> Storage:
    return Storage(str(root / "store"))


def test_the_benchmark_decides(storage: Storage, done: RoundResult) -> None:
    extra = done.manifests[StageName.EVALUATION].extra
    assert extra["decision"]["metric"] == "benchmark" and extra["gate"]["name"] == "geneval"
    assert "the score on geneval" in extra["decision"]["reason"]
    assert {group["name"] for group in extra["decision"]["categories"]} == {"colors", "counting"}
    assert {group["name"] for group in extra["held_out"]["categories"]} == {"attribute", "layout"}
    kinds = sorted(read_record(storage, identity).kind for identity in round_ids(storage))
    assert kinds == ["benchmark", "benchmark", "round"] and find_garbage(storage, 0.0) == []


def test_it_is_shown_in_the_report_the_summary_and_the_plan(
    root: Path, address: str, storage: Storage, done: RoundResult, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Path(done.report).read_text(encoding="utf-8")
    assert "Score on the benchmark geneval" in report and "Not the protocol: samples 2 instead of 4." in report
    assert "Accuracy on held-out prompts" in report and "These figures did not decide" in report
    show_round(done.manifests, done.ran, done.promotion, done.report)
    summary = capsys.readouterr().out
    assert "Score on the benchmark geneval, 95 % intervals" in summary and "not the evaluator of geneval" in summary
    show_plan(plan_round(Round(gated(root, address), storage, done.model))[0])
    assert "gate geneval:" in " ".join(capsys.readouterr().out.split())
    plans = plan_round(Round(gated(root, address), storage, done.model))[0]
    assert (plans[-1].status, plans[-1].note) == ("cached", "gate geneval: parent measured, child measured")


def test_the_pages_of_its_storage_can_be_looked_at(storage: Storage, done: RoundResult) -> None:
    client = TestClient(build_site(storage), base_url="http://127.0.0.1:8350", follow_redirects=False)
    assert client.get("/").status_code == 200
    for identity in round_ids(storage):
        page = client.get(f"/rounds/{identity}")
        assert page.status_code == 200, page.text
        if read_record(storage, identity).kind == "benchmark":
            scores = stage_records(storage, identity)[StageName.EVALUATION].fingerprint
            assert [client.get(f"{path}/{scores}{end}").status_code for path, end in JUDGING] == [200, 404]
            assert client.get(f"/rounds/{identity}/comparisons?category=layout&text=a").status_code == 200
        else:
            assert "Score on the benchmark geneval" in page.text
            comparisons = client.get(f"/rounds/{identity}/comparisons").text
            assert "judged by the model that the first round started from" in " ".join(comparisons.split())


def test_a_finished_round_computes_nothing_and_the_next_one_finds_its_parent(
    root: Path, address: str, storage: Storage, done: RoundResult
) -> None:
    assert finished_round(Round(gated(root, address), storage, done.model)) is not None
    again = self_improvement_round(gated(root, address))
    assert again.ran == () and again.manifests == done.manifests
    config = gated(root, address, seed=1)
    plans = plan_round(Round(config, storage, done.next_model))[0]
    assert (plans[-1].status, plans[-1].note) == ("waits", "gate geneval: parent measured, child to be measured")


def test_a_refresh_of_the_evaluation_scores_again(
    root: Path, address: str, storage: Storage, done: RoundResult
) -> None:
    """So damaged scores, of a child that has no path of its own, can be repaired."""
    first = done.manifests[StageName.EVALUATION]
    scores = first.extra["gate"]["scores"]
    for entry in storage.list(f"evaluation/{scores['child']}"):
        if entry.endswith(".parquet"):
            storage.write(entry, b"damaged")
    result = self_improvement_round(gated(root, address), refresh=[StageName.EVALUATION])
    second = result.manifests[StageName.EVALUATION]
    assert result.ran == (StageName.EVALUATION,) and second.fingerprint != first.fingerprint
    assert second.extra["gate"]["scores"]["child"] not in scores.values()
    assert second.extra["decision"] == first.extra["decision"] and second.digest == first.digest


def test_a_gate_without_prompts_is_refused_before_anything_is_computed(
    root: Path, address: str, tmp_path: Path, prefect_server: str
) -> None:
    empty = {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch"), "shard_size": 4}
    with pytest.raises(ConfigError, match=r"benchmark\.prompts: is needed for this benchmark"):
        self_improvement_round(gated(root, address, storage=empty, benchmark={"name": "geneval"}))
    assert not Storage(str(tmp_path / "store")).list()
