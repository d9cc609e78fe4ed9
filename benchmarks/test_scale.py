"""The benchmark of scale: what it puts in comes out, at a small size."""

from __future__ import annotations

import pytest

from benchmarks import scale
from benchmarks.measuring import Clock, growth
from benchmarks.synthetic import CONTAMINATED, DUPLICATES, LONGEST, SHORTEST, held_out, prompt_stream
from ospo_core.prompts.filters import normalise


@pytest.mark.parametrize("part", scale.PARTS)
def test_every_part_finds_what_was_put_in(part: str) -> None:
    result = scale.measure(part, 1500, shard_size=256)
    assert (result.part, result.size) == (part, 1500)
    assert result.wall > 0 and result.peak >= result.before > 0 and result.outcome


def test_an_outcome_that_was_not_put_in_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "ContaminationCheck", lambda prompts: lambda prompt: None)
    with pytest.raises(SystemExit, match="contaminated"):
        scale.contamination(500, 256, Clock())


def test_prompts_are_the_same_for_the_same_seed_with_the_share_of_each_kind() -> None:
    stream = prompt_stream(5000, seed=3)
    assert stream == prompt_stream(5000, seed=3) != prompt_stream(5000, seed=4)
    texts = [normalise(prompt) for prompt in stream.prompts]
    known = {normalise(prompt) for prompt in held_out()}
    assert sum(text in known for text in texts) == stream.planted["contaminated"]
    fresh = [text for text in texts if text not in known]
    assert 0 <= len(fresh) - len(set(fresh)) - stream.planted["exact"] < stream.planted["near"]
    assert stream.planted["exact"] / 5000 == pytest.approx(DUPLICATES, abs=0.02)
    assert stream.planted["contaminated"] / 5000 == pytest.approx(CONTAMINATED, abs=0.01)
    lengths = {len(prompt.split()) for prompt in stream.prompts if prompt.islower()}
    assert {SHORTEST, LONGEST} <= lengths and len(lengths) > LONGEST - SHORTEST


def test_growth_is_the_exponent() -> None:
    assert growth([10, 100, 1000], [1.0, 10.0, 1000.0]) == pytest.approx([1.0, 2.0])
