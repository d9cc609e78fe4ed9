"""Evaluating a tiny random model: complete rows, noise that belongs to the prompt, judges that are asked."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ospo_core.config.sections import EvaluationConfig
from ospo_core.evaluation.judges import ModelJudge, all_yes, embedded_oracle
from ospo_core.evaluation.prompts import EvalPrompt
from ospo_core.evaluation.run import draw_pictures, judge_pictures, picture_seed
from ospo_core.models.base import UnifiedModel
from ospo_core.models.pictures import encode_png
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
    drawn = draw_pictures(loaded, PROMPTS, config, "parent", is_red)
    assert {row["vqa_correct"] for row in drawn} == {None} and table_from_rows("evaluation", drawn).num_rows == 6
    rows = judge_pictures(ModelJudge(loaded, 4), drawn, {one.item_id: one.questions for one in PROMPTS}, 4)
    assert table_from_rows("evaluation", rows).num_rows == 6
    assert [(row["item_id"], row["sample"]) for row in rows] == [(p.item_id, s) for p in PROMPTS for s in (0, 1)]
    assert [row["oracle_correct"] for row in rows] == [True, True, False, False, False, False]
    assert all(len(row["tokens"]) == loaded.geometry.tokens for row in rows)
    assert all(row["vqa_correct"] == (row["vqa_score"] > 0) for row in rows), "one question: mean and all agree"
    assert {row["model"] for row in rows} == {"parent"}
    with Image.open(BytesIO(rows[0]["image"]["bytes"])) as image:
        assert image.size == (loaded.geometry.width, loaded.geometry.height)


def test_batches_and_neighbours_change_no_picture(loaded: UnifiedModel) -> None:
    together = draw_pictures(loaded, PROMPTS, EvaluationConfig(batch_size=8), "parent", is_red)
    alone = draw_pictures(loaded, PROMPTS[1:2], EvaluationConfig(batch_size=1), "child", is_red)
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


def test_the_judge_answers_every_question_about_its_picture(loaded: UnifiedModel) -> None:
    rows = draw_pictures(loaded, PROMPTS[:2], EvaluationConfig(), "parent", is_red)
    questions = {"red": ["is there a red circle ?", "is there a circle ?"], "blue": ["is there a star ?"]}
    judged = judge_pictures(ModelJudge(loaded, 4), rows, questions, batch_size=8)
    assert [[answer["question"] for answer in row["answers"]] for row in judged] == [*questions.values()]
    for row in judged:
        scores = [answer["p_yes"] - answer["p_no"] for answer in row["answers"]]
        assert row["vqa_score"] == pytest.approx(sum(scores) / len(scores))
        assert row["vqa_correct"] == all(score > 0 for score in scores)
    alone = judge_pictures(ModelJudge(loaded, 1), rows, questions, batch_size=1)
    assert [row["vqa_score"] for row in alone] == pytest.approx([row["vqa_score"] for row in judged], abs=1e-5)


def test_a_judge_reads_pictures_of_another_size_and_none(loaded: UnifiedModel) -> None:
    large = encode_png(np.zeros((48, 48, 3), dtype=np.uint8))
    ((answer,),) = ModelJudge(loaded, 4).answer([large], [["is there a star ?"]])
    assert all(0.0 <= chance <= 1.0 for chance in answer)
    assert ModelJudge(loaded, 4).answer([], []) == []


def test_all_yes_needs_a_question_and_every_answer() -> None:
    assert all_yes([0.1, 0.9]) and not all_yes([0.9, 0.0]) and not all_yes([])
