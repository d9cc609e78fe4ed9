from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ospo_core.errors import ModelError
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.vqa import answer_questions, question_ids

QUESTIONS = [
    ["is there a red circle ?", "are there two shapes ?", "is the red circle left of the blue square ?"],
    [],
    ["is there a star ?"],
    ["is there a blue square ?", "is the blue square left of the star ?"],
]


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_every_question_of_every_picture_is_answered(tiny: JanusModel, pictures: NDArray[np.uint8]) -> None:
    answers = answer_questions(tiny, pictures, QUESTIONS, batch_size=4)
    assert [len(found) for found in answers] == [3, 0, 1, 2]


def test_batch_size_changes_no_answer(tiny: JanusModel, pictures: NDArray[np.uint8]) -> None:
    flat = [
        np.array([answer for found in answer_questions(tiny, pictures, QUESTIONS, size) for answer in found])
        for size in (1, 3, 100)
    ]
    assert np.allclose(flat[0], flat[1], rtol=1e-4, atol=1e-8)
    assert np.allclose(flat[0], flat[2], rtol=1e-4, atol=1e-8)


def test_the_vision_encoder_runs_once_a_picture(
    tiny: JanusModel, pictures: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = tiny.network.model.get_image_features

    def counted(pixels: torch.Tensor) -> object:
        seen.append(len(pixels))
        return plain(pixels)

    monkeypatch.setattr(tiny.network.model, "get_image_features", counted)
    answer_questions(tiny, pictures, QUESTIONS, batch_size=100)
    assert seen == [3]  # the picture without a question is not read


def plain_answers(tiny: JanusModel, picture: NDArray[np.uint8], questions: list[str]) -> NDArray[np.float64]:
    """Answer one question at a time, each with the whole text before it and without masks."""
    features, found = tiny.embed_pictures(picture[None]), []
    for question in questions:
        prefix, (row,) = question_ids(tiny, [question])
        ids = torch.tensor([prefix + row])
        embeddings = tiny.embed_text(ids).masked_scatter((ids == tiny.picture_id)[..., None], features)
        states = tiny.backbone(inputs_embeds=embeddings, use_cache=False).last_hidden_state[0, -1]
        chances = tiny.text_logits(states).softmax(dim=-1)
        found.append([float(chances[spellings].max()) for spellings in tiny.answer_ids])
    return np.array(found).reshape(-1, 2)


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_answers_are_those_of_one_question_at_a_time(
    tiny: JanusModel, pictures: NDArray[np.uint8], batch_size: int
) -> None:
    further = {0: ["is there a star ?", "is there a red star ?"], 2: [], 3: ["are there two shapes ?"]}
    asked = [*QUESTIONS[:3], QUESTIONS[3] + QUESTIONS[3][:1]]
    answers = answer_questions(tiny, pictures, asked, batch_size, lambda index, _: further[index])
    for picture, questions, more, found in zip(pictures, asked, map(further.get, range(4)), answers, strict=True):
        expected = plain_answers(tiny, picture, questions + (more or []))
        assert np.allclose(np.reshape(found, (-1, 2)), expected, rtol=1e-4, atol=1e-8)


def test_further_questions_depend_on_the_answers_and_nothing_is_read_or_asked_twice(
    tiny: JanusModel, pictures: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for equal pictures."""
    rows: list[int] = []
    states: list[int] = []
    monkeypatch.setattr(tiny, "embed_pictures", counting(tiny.embed_pictures, rows))
    monkeypatch.setattr(tiny, "text_logits", counting(tiny.text_logits, states))
    seen: dict[int, list[tuple[float, float]]] = {}

    def follow_up(index: int, given: list[tuple[float, float]]) -> list[str]:
        seen[index] = given
        return ["is there a star ?", "is it red ?"] if index == 0 else []

    shown = pictures[[0, 0, 1]]
    asked = [["is there a star ?"] * 2, ["is it blue ?", "is there a star ?"], ["is it blue ?"]]
    answers = answer_questions(tiny, shown, asked, 100, follow_up)
    assert rows == [2] and states == [3, 1]
    assert [len(found) for found in answers] == [4, 2, 1]
    assert seen == {0: answers[0][:2], 1: answers[1], 2: answers[2]}
    assert answers[0][0] == answers[0][1] == answers[0][2] == answers[1][1]


def counting(function: Callable[[Any], Any], sizes: list[int]) -> Callable[[Any], Any]:
    """Return the function, which also notes the lengths of its arguments."""

    def counted(rows: Any) -> Any:
        sizes.append(len(rows))
        return function(rows)

    return counted


def test_the_text_before_the_question_is_shared(tiny: JanusModel) -> None:
    prefix, rows = question_ids(tiny, QUESTIONS[0])
    assert prefix[-tiny.geometry.read_positions :] == [tiny.picture_id] * tiny.geometry.read_positions
    assert prefix[0] == tiny.special.bos
    assert all(row[0] == tiny.special.end_of_image for row in rows)


def test_a_question_that_holds_a_placeholder_is_refused(tiny: JanusModel) -> None:
    with pytest.raises(ModelError, match="exactly one picture"):
        question_ids(tiny, ["is there a star ?", "is there a <image_placeholder> ?"])


def test_no_pictures_give_no_answers(tiny: JanusModel) -> None:
    assert answer_questions(tiny, np.empty((0, 32, 32, 3), dtype=np.uint8), [], 4) == []


def test_pictures_without_a_list_of_questions_each_are_refused(tiny: JanusModel, pictures: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="4 pictures but 1 lists"):
        answer_questions(tiny, pictures, [[]], 4)
