"""The flow of a benchmark: two models, a page in the storage, everything cached the second time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.benchmark import benchmark
from ospo.benchmarks import write_folder
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError, MissingModelError
from ospo_core.evaluation.benchmarks.prompts import load_benchmark
from ospo_core.rounds.records import read_record, round_ids
from tests.support.rounds import small_round
from tests.support.tiny_janus import make_tiny_janus

LINES = [
    '{"tag": "counting", "include": [{"class": "circle", "count": 2}], "prompt": "two circles"}',
    '{"tag": "colors", "include": [{"class": "star", "count": 1, "color": "red"}], "prompt": "a <b>red</b> star"}',
]


@pytest.fixture(autouse=True)
def server(prefect_server: str) -> Iterator[None]:
    yield


def test_two_models_that_draw_the_same_have_folders_of_their_own(tmp_path: Path) -> None:
    """A copy of a model under another path; and one whose weights differ where no picture shows it."""
    (tmp_path / "evaluation_metadata.jsonl").write_text(LINES[0], encoding="utf-8")
    first = make_tiny_janus(tmp_path / "model", seed=0)
    copy, other = (shutil.copytree(first, tmp_path / name) for name in ("copy", "other"))
    config_file = other / "generation_config.json"
    config_file.write_text(
        config_file.read_text(encoding="utf-8").replace("{", '{"max_length": 77,', 1), encoding="utf-8"
    )
    section = {"name": "geneval", "prompts": str(tmp_path), "samples": 1, "detector": "embedded:shapes"}
    for number, second in enumerate((copy, other)):
        config = small_round(tmp_path, model={"path": str(second)}, benchmark=section)
        result = benchmark(config, against=str(first))
        prompts = load_benchmark(config.benchmark, config.evaluation)
        storage, out = Storage(config.storage.root), tmp_path / f"out{number}"
        assert write_folder(storage, config, prompts, result.measured, out) == []
        before, after = (one.model[:12] for one in result.measured)
        expected = {before, f"{after}-again"} if second is copy else {before, after}
        assert {path.name for path in out.iterdir()} == expected and len(expected) == 2
        assert [one["digest"][:12] for one in result.page["models"]] == [before, after]
        assert all(len(list((out / name).rglob("*.png"))) == 1 for name in expected)


def test_two_models_on_a_benchmark(tmp_path: Path) -> None:
    (tmp_path / "evaluation_metadata.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    first, second = (make_tiny_janus(tmp_path / f"model{seed}", seed=seed) for seed in (0, 1))
    section = {"name": "geneval", "prompts": str(tmp_path), "samples": 2, "detector": "embedded:shapes"}
    config = small_round(tmp_path, model={"path": str(second)}, benchmark=section)
    result = benchmark(config, against=str(first))
    assert [one.name for one in result.measured] == [str(first), str(second)]
    assert result.page["difference"]["all"]["prompts"] == 2 and result.page["changed"] == ["samples 2 instead of 4"]
    html = Path(result.report).read_text(encoding="utf-8")
    assert "not the evaluator of geneval" in html and "Not the protocol:" in html and "arXiv 2501.17811" in html
    storage = Storage(config.storage.root)
    assert {read_record(storage, identity).kind for identity in round_ids(storage)} == {"benchmark"}
    again = benchmark(config, against=str(first))
    assert [one.scores for one in again.measured] == [one.scores for one in result.measured], "cached"
    refreshed = benchmark(config, refresh=True).measured[0]
    assert refreshed.pictures == result.measured[1].pictures, "drawn once"
    assert refreshed.scores.digest == result.measured[1].scores.digest
    assert refreshed.scores.fingerprint != result.measured[1].scores.fingerprint

    prompts = load_benchmark(config.benchmark, config.evaluation)
    assert write_folder(storage, config, prompts, result.measured, tmp_path / "out") == []
    written = sorted(path.relative_to(tmp_path / "out").parts for path in (tmp_path / "out").rglob("*.*"))
    digest = result.measured[0].scores.extra["benchmark"]["model"][:12]
    assert (digest, "pictures", "00001", "samples", "0001.png") in written and (digest, "scores.jsonl") in written
    lines = (tmp_path / "out" / digest / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4

    with pytest.raises(MissingModelError, match="no such folder"):
        benchmark(config, against=str(tmp_path / "nothing"))
    elsewhere = config.storage.model_copy(update={"root": str(tmp_path / "other")})
    lost = config.model.model_copy(update={"path": str(tmp_path / "nothing")})
    with pytest.raises(MissingModelError, match="no such folder"):
        benchmark(config.model_copy(update={"model": lost, "storage": elsewhere}), against=str(first))
    assert not list((tmp_path / "other").glob("images/*")), "found before anything is drawn"
    with pytest.raises(ConfigError, match=r"benchmark\.prompts"):
        missing = config.benchmark.model_copy(update={"prompts": str(tmp_path / "none")})
        benchmark(config.model_copy(update={"benchmark": missing}))
