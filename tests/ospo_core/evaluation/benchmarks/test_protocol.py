"""Protocols: published numbers of pictures, and what the configuration changes is said."""

from __future__ import annotations

import pytest

from ospo_core.config.sections import BenchmarkConfig, EvaluationConfig
from ospo_core.evaluation.benchmarks.protocol import OWN, PROTOCOLS, protocol_of
from ospo_core.evaluation.benchmarks.published import PUBLISHED


@pytest.mark.parametrize(("name", "samples"), [("t2i-compbench", 10), ("geneval", 4), ("dpg", 4)])
def test_every_value_of_a_protocol_has_a_source(name: str, samples: int) -> None:
    protocol = protocol_of(BenchmarkConfig(name=name), EvaluationConfig(guidance=1.0, samples=7))
    assert (protocol.samples, protocol.guidance, protocol.temperature, protocol.changed) == (samples, 5.0, 1.0, ())
    assert {"samples", "guidance", "temperature", "seed"} <= set(protocol.sources)


def test_changes_are_said() -> None:
    config = BenchmarkConfig(name="geneval", samples=2, guidance=5.0, limit=3)
    protocol = protocol_of(config, EvaluationConfig())
    assert protocol.samples == 2 and protocol.changed == ("samples 2 instead of 4", "at most 3 prompts")


def test_own_prompts_are_drawn_as_in_an_evaluation() -> None:
    protocol = protocol_of(BenchmarkConfig(name="mine.jsonl"), EvaluationConfig(guidance=2.0, samples=3, seed=7))
    assert (protocol.name, protocol.samples, protocol.guidance, protocol.seed) == (OWN, 3, 2.0, 7)


def test_published_results_belong_to_known_benchmarks_and_are_shares_with_a_source() -> None:
    assert set(PUBLISHED) == set(PROTOCOLS)
    for one in (one for some in PUBLISHED.values() for one in some):
        assert "arXiv" in one.source and all(0 < score < 1 for score in one.scores.values())
