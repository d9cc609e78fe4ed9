"""What the text stages share: their fields, and what they say when a model's answers cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospo_core.config.sections import EngineConfig, PerturbationsConfig
from ospo_core.engines.base import Completion, Request
from ospo_core.errors import StageError
from ospo_core.schema import StageName
from ospo_core.stages.base import options_of
from ospo_core.stages.perturbations import PerturbationsStage
from ospo_core.stages.prompts import PromptsStage
from ospo_core.stages.text import RAW_ANSWERS, text_fields
from tests.support.rounds import ScriptedResources, finished, small_round, text_run
from tests.support.scripted_text import ScriptedEngine, answer


class Chatty(ScriptedEngine):
    """Writes prompts, but chats about everything else; says which model it holds."""

    def generate(self, requests: Any) -> list[Completion]:
        return [Completion(self.text(request), 3, "stop") for request in requests]

    def text(self, request: Request) -> str:
        return answer(request.prompt, request.seed) if "write a prompt" in request.prompt else "Well ?\n| maybe | so"

    def facts(self) -> dict[str, Any]:
        return {"served_model": {"name": "text", "verified": False}}


def test_options_added_later_count_only_when_they_are_used() -> None:
    assert not {"top_p", "dense_top_p"} & set(options_of(PerturbationsConfig()))
    assert options_of(PerturbationsConfig(top_p=0.9))["top_p"] == 0.9
    assert "structured_output" not in options_of(EngineConfig())
    assert "attempts" not in options_of(PerturbationsConfig(), {"attempts"})


def test_the_version_of_the_texts_is_part_of_the_fields_from_two_on(tmp_path: Path) -> None:
    shapes = text_fields(small_round(tmp_path))
    assert set(shapes) == {"engine", "seed"} and set(shapes["engine"]) == {
        "kind",
        "dtype",
        "max_model_len",
        "served_model",
    }
    assert text_fields(small_round(tmp_path, model={"family": "janus_pro"}))["texts"] >= 2


def test_a_stage_without_a_usable_answer_says_why_and_shows_one(tmp_path: Path) -> None:
    config, resources = small_round(tmp_path), ScriptedResources(Chatty())
    prompts = finished(text_run(PromptsStage(), config, resources))
    assert prompts.extra["served_model"]["verified"] is False
    run = text_run(PerturbationsStage(), config, resources, {StageName.PROMPTS: prompts})
    with pytest.raises(StageError, match=r"no answer of the model can be used; dropped: 24 unparsable") as caught:
        finished(run)
    assert r"Well ?\n| maybe | so" in str(caught.value)


def test_unmet_quotas_say_why_and_manifests_keep_one_answer_for_each_reason(tmp_path: Path) -> None:
    quotas = {"quotas": {"color_2": 400}, "attempts_per_prompt": 1}
    with pytest.raises(StageError, match=r"quotas are unmet; dropped: \d+ duplicate.*duplicate, for example: .a "):
        finished(text_run(PromptsStage(), small_round(tmp_path / "a", prompts=quotas), ScriptedResources()))
    config = small_round(tmp_path / "b", prompts={**quotas, "on_unmet_quota": "warn"})
    made = finished(text_run(PromptsStage(), config, ScriptedResources()))
    assert set(made.extra) == {"unmet_quotas", RAW_ANSWERS} and "duplicate" in made.extra[RAW_ANSWERS]
