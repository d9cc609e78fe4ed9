"""Evaluators on tiny random weights: shapes, ranges, that batches change nothing, and that wrong folders are named."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ospo_core.config.sections import BenchmarkConfig
from ospo_core.errors import MissingModelError, ModelError
from ospo_core.evaluation.benchmarks.detections import Box, Detection
from ospo_core.evaluation.benchmarks.evaluators import load_evaluator
from ospo_core.evaluation.benchmarks.gathering import Evaluators, Role, evaluator_folder
from ospo_core.evaluation.benchmarks.geneval import COLORS
from ospo_core.evaluation.benchmarks.scoring import Needs
from tests.support.tiny_evaluators import tiny_blip, tiny_clip, tiny_dpt, tiny_grounding_dino, tiny_owlv2

MAKERS = {Role.VQA: tiny_blip, Role.DETECTOR: tiny_owlv2, Role.CLIP: tiny_clip, Role.DEPTH: tiny_dpt}


def png(seed: int, size: int = 48) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(size, size, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Role, Path]:
    root = tmp_path_factory.mktemp("evaluators")
    return {role: make(root / role.value) for role, make in MAKERS.items()}


def test_blip_answers_with_probabilities_of_the_first_word(folders: dict[Role, Path]) -> None:
    blip = load_evaluator(Role.VQA, folders[Role.VQA], "cpu")
    questions = [["a red cat?", "a bench?"], ["is there a dog?"]]
    together = blip.answer([png(1), png(2)], questions)
    assert [len(some) for some in together] == [2, 1]
    assert all(0 < yes < 1 and 0 < no < 1 and yes + no < 1 for some in together for yes, no in some)
    alone = [blip.answer([png(1)], [[question]])[0][0] for question in questions[0]]
    assert together[0] == [pytest.approx(one, abs=1e-5) for one in alone], "neither batch nor padding counts"
    assert together[0][0] != pytest.approx(blip.answer([png(2)], [["a red cat?"]])[0][0], abs=1e-6)


@pytest.mark.parametrize("make", [tiny_owlv2, tiny_grounding_dino], ids=["owlv2", "grounding-dino"])
def test_a_detector_gives_boxes_of_the_labels_in_the_picture(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    detector = load_evaluator(Role.DETECTOR, make(tmp_path / "detector"), "cpu")
    all_of, none = detector.detect([png(1), png(1)], [["cat", "dog"], ["cat"]], [0.0, 1.0])
    assert all_of and none == []
    assert {one.label for one in all_of} <= {"cat", "dog"} and all(0 <= one.score <= 1 for one in all_of)
    assert [one.score for one in all_of] == sorted((one.score for one in all_of), reverse=True)
    assert all(one.box.area >= 0 for one in all_of)


def test_clip_compares_and_names_colours(folders: dict[Role, Path]) -> None:
    clip = load_evaluator(Role.CLIP, folders[Role.CLIP], "cpu")
    first, second = clip.similarity([png(1), png(2)], ["a red cat", "a dog"])
    assert -1 <= first <= 1 and -1 <= second <= 1
    assert first == pytest.approx(clip.similarity([png(1)], ["a red cat"])[0], abs=1e-5)
    found = [Detection("cat", 1.0, Box(0, 0, 20, 20)), Detection("dog", 1.0, Box(-5, 60, -1, 90))]
    assert set(clip.colors(png(1), found)) <= set(COLORS)


def test_depth_has_the_size_of_the_picture(folders: dict[Role, Path]) -> None:
    (depth,) = load_evaluator(Role.DEPTH, folders[Role.DEPTH], "cpu").depth([png(1, 40)])
    assert depth.shape == (40, 40) and depth.min() == 0 and depth.max() == pytest.approx(1)


def test_evaluators_are_loaded_when_needed_and_find_what_is_asked(folders: dict[Role, Path]) -> None:
    loaded: list[Role] = []

    def load(role: Role) -> object:
        loaded.append(role)
        return load_evaluator(role, folders[role], "cpu")

    evaluators = Evaluators(load, BenchmarkConfig(threshold=0.0))
    needs = [Needs(questions=("a cat?",)), Needs(labels=("cat",), colored=frozenset({"cat"})), Needs()]
    answered, detected, nothing = evaluators.gather([png(1), png(2), png(3)], needs)
    assert len(answered.answers) == 1 and not answered.found and not nothing.answers and nothing.depth is None
    assert detected.found and all(one.color in COLORS for one in detected.found)
    assert loaded == [Role.VQA, Role.DETECTOR, Role.CLIP]


@pytest.mark.parametrize("role", list(Role))
def test_a_model_of_another_kind_is_refused(folders: dict[Role, Path], role: Role) -> None:
    other = Role.CLIP if role is Role.VQA else Role.VQA
    with pytest.raises(ModelError, match=rf"benchmark\.{role}: is a model of type .* cannot do this job"):
        evaluator_folder(BenchmarkConfig(**{role.value: str(folders[other])}), role)


def test_a_missing_or_incomplete_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match=r"benchmark\.clip: no such folder"):
        evaluator_folder(BenchmarkConfig(clip=str(tmp_path / "no" / "where")), Role.CLIP)
    folder = tiny_clip(tmp_path / "clip")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"benchmark\.clip: cannot be loaded"):
        load_evaluator(Role.CLIP, folder, "cpu")
