from __future__ import annotations

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
