"""Evaluating a tiny random model: complete rows, noise that belongs to the prompt, judges that are asked."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ospo_core.config.sections import EvaluationConfig
from ospo_core.evaluation.judges import all_yes, embedded_oracle, self_vqa_scores
from ospo_core.evaluation.prompts import EvalPrompt
from ospo_core.evaluation.run import evaluate_model, picture_seed
from ospo_core.models.base import UnifiedModel
from ospo_core.schema import table_from_rows
from tests.support.tiny_janus import load_tiny_janus, make_tiny_janus

PROMPTS = [
    EvalPrompt(
        item_id=name,
        category="attribute",
        sub_category="color_1",
        prompt=f"a {name} circle",
        questions=[f"is there a {name} circle ?"],
    )
    for name in ("red", "blue", "green")
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> UnifiedModel:
    return load_tiny_janus(make_tiny_janus(tmp_path_factory.mktemp("janus")))


def is_red(picture: NDArray[np.uint8], prompt: str) -> bool:
    return "red" in prompt


def test_rows_are_complete_ordered_and_fit_the_table(loaded: UnifiedModel) -> None:
    config = EvaluationConfig(samples=2, batch_size=4)
    rows = evaluate_model(loaded, PROMPTS, config, "parent", is_red)
    assert table_from_rows("evaluation", rows).num_rows == 6
    assert [(row["item_id"], row["sample"]) for row in rows] == [(p.item_id, s) for p in PROMPTS for s in (0, 1)]
    assert [row["oracle_correct"] for row in rows] == [True, True, False, False, False, False]
    assert all(len(row["tokens"]) == loaded.geometry.tokens for row in rows)
    assert all(row["vqa_correct"] == (row["vqa_score"] > 0) for row in rows), "one question: mean and all agree"
    assert {row["model"] for row in rows} == {"parent"}
    with Image.open(BytesIO(rows[0]["image"]["bytes"])) as image:
        assert image.size == (loaded.geometry.width, loaded.geometry.height)


def test_batches_and_neighbours_change_no_picture(loaded: UnifiedModel) -> None:
    together = evaluate_model(loaded, PROMPTS, EvaluationConfig(batch_size=8), "parent", is_red)
    alone = evaluate_model(loaded, PROMPTS[1:2], EvaluationConfig(batch_size=1), "child", is_red)
    assert together[1]["tokens"] == alone[0]["tokens"] and together[1]["seed"] == alone[0]["seed"]


def test_seeds_depend_on_the_configured_seed_the_prompt_and_the_sample() -> None:
    config = EvaluationConfig()
    seeds = {picture_seed(config, "a", 0), picture_seed(config, "a", 1), picture_seed(config, "b", 0)}
    assert len(seeds | {picture_seed(EvaluationConfig(seed=1), "a", 0)}) == 4


def test_a_prompt_outside_the_embedded_language_has_no_verdict() -> None:
    black = np.zeros((64, 64, 3), dtype=np.uint8)
    assert embedded_oracle(black, "an astronaut riding a horse") is None
    assert embedded_oracle(black, "a red circle") is False
    assert embedded_oracle(black[:32], "a red circle") is None


def test_the_model_judges_by_the_prompts_questions_or_by_the_whole_prompt(loaded: UnifiedModel) -> None:
    red = PROMPTS[0].model_copy(update={"questions": ["is there a red circle ?", "is there a circle ?"]})
    whole = PROMPTS[0].model_copy(update={"prompt": "a star", "questions": []})
    asked = PROMPTS[0].model_copy(update={"prompt": "a star", "questions": ["is there a star ?"]})
    pictures = np.zeros((3, loaded.geometry.height, loaded.geometry.width, 3), dtype=np.uint8)
    scores = self_vqa_scores(loaded, [red, whole, asked], pictures, batch_size=4)
    assert [len(answers) for answers in scores] == [2, 1, 1] and scores[1] == pytest.approx(scores[2])
    assert all(-1.0 <= score <= 1.0 for answers in scores for score in answers)


def test_all_yes_needs_a_question_and_every_answer() -> None:
    assert all_yes([0.1, 0.9]) and not all_yes([0.9, 0.0]) and not all_yes([])
