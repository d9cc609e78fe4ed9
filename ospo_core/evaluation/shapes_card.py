"""How good the embedded model is at each of its tasks, by the oracle: the figures of its model card."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import EngineConfig, EvaluationConfig, ModelConfig
from ospo_core.engines.base import Request, TextEngine, build_engine
from ospo_core.evaluation.judges import ModelJudge, judge_quality
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.evaluation.run import draw_pictures, judge_pictures
from ospo_core.models.base import UnifiedModel
from ospo_core.models.export import export_text_backbone
from ospo_core.models.loading import load_model
from ospo_core.models.pictures import decode_tokens, encode_pictures, to_pixels
from ospo_core.prompts.families import Chat, ParseError
from ospo_core.schema import PERTURBATIONS, SubCategory
from ospo_core.shapes.grammar import GrammarError, is_drawable, parse
from ospo_core.shapes.oracle import questions_of, read_grids, shows
from ospo_core.shapes.perturb import is_valid_perturbation
from ospo_core.shapes.placement import paint, place
from ospo_core.shapes.pretraining.lessons import SHAPES_FAMILY, pick_perturbation
from ospo_core.shapes.render import render
from ospo_core.shapes.sentences import heldout_texts, random_training_sentence
from ospo_core.shapes.world import read_scene

Figures = dict[str, float]


def measure_model(folder: Path, count: int, guidances: Sequence[float] = (1.0, 2.0), device: str = "auto") -> Figures:
    """Return all figures of the model in `folder`; `count` held-out prompts are drawn, and as many texts per task."""
    loaded = load_model(folder, ModelConfig.model_validate({"path": str(folder), "device": device}))
    figures = {"vq_keeps_scene": vq_keeps_scene(loaded, count)}
    for guidance in guidances:
        figures |= drawing_figures(loaded, count, guidance)
    with TemporaryDirectory() as scratch:
        backbone = export_text_backbone(folder, Path(scratch) / "text")
        with build_engine(EngineConfig(kind="transformers"), backbone) as engine:
            figures |= text_figures(engine, count)
    return figures


def vq_keeps_scene(loaded: UnifiedModel, count: int) -> float:
    """Return the share of held-out scenes that still show their prompt after encoding and decoding."""
    rng = random.Random(3)
    sentences = [parse(text) for text in sorted(heldout_texts())]
    rng.shuffle(sentences)
    chosen = sentences[:count]
    pictures = render(np.stack([paint(sentence, place(sentence, rng), rng) for sentence in chosen]))
    restored = decode_tokens(loaded, encode_pictures(loaded, to_pixels(pictures)).numpy())
    grids = read_grids(restored)
    return float(np.mean([shows(read_scene(grid), sentence) for grid, sentence in zip(grids, chosen, strict=True)]))


def drawing_figures(loaded: UnifiedModel, count: int, guidance: float) -> Figures:
    """Return generation accuracy per sub-category and the judge's quality on the model's own pictures."""
    config = EvaluationConfig(limit=count, guidance=guidance)
    prompts = load_evaluation_prompts(config)
    drawn, questions = draw_pictures(loaded, prompts, config, "model"), {one.item_id: one.questions for one in prompts}
    rows = judge_pictures(ModelJudge(loaded, config.batch_size), drawn, questions, config.batch_size)
    quality = judge_quality(rows)
    tag = f"guidance_{guidance:g}"
    figures = {
        f"{tag}/accuracy": float(np.mean([bool(row["oracle_correct"]) for row in rows])),
        f"{tag}/vqa_score": float(np.mean([row["vqa_score"] for row in rows])),
    }
    for sub_category in SubCategory:
        own = [row for row in rows if row["sub_category"] == sub_category.value]
        right = [bool(row["oracle_correct"]) for row in own]
        agree = [row["vqa_correct"] == row["oracle_correct"] for row in own]
        figures[f"{tag}/accuracy/{sub_category.value}"] = float(np.mean(right)) if own else 0.0
        figures[f"{tag}/judge_accuracy/{sub_category.value}"] = float(np.mean(agree))
    if quality is not None:
        for measure in ("accuracy", "auc", "precision", "recall"):
            figures[f"{tag}/judge_{measure}"] = float(getattr(quality, measure) or 0.0)
    return figures


def _answers(engine: TextEngine, chats: Sequence[Chat], temperature: float, tag: str) -> list[str]:
    requests = [
        Request(SHAPES_FAMILY.chat_text(chat), derive_seed("measure", tag, k), temperature, 128)
        for k, chat in enumerate(chats)
    ]
    return [completion.text for completion in engine.generate(requests)]


def text_figures(engine: TextEngine, count: int) -> Figures:
    """Return the shares of valid answers of the four text tasks."""
    rng, each = random.Random(5), max(1, count // len(SubCategory))
    subjects = [
        (sub_category, random_training_sentence(sub_category, rng)) for sub_category in SubCategory for _ in range(each)
    ]
    return {
        **_writing_figures(engine, each, rng),
        **_perturbing_figures(engine, subjects, rng),
        **_densifying_figures(engine, subjects, rng),
        **_decomposing_figures(engine, subjects),
    }


def _writing_figures(engine: TextEngine, each: int, rng: random.Random) -> Figures:
    chats = []
    for sub_category in SubCategory:
        pool = SHAPES_FAMILY.seed_examples(sub_category)
        shown = 5 if sub_category is SubCategory.COMPLEX else 3
        chats += [
            SHAPES_FAMILY.write_prompt(sub_category, rng.sample(pool, min(shown, len(pool)))) for _ in range(each)
        ]
    written = [_written(answer) for answer in _answers(engine, chats, 1.0, "write")]
    valid = [text for text in written if text is not None]
    return {"prompts/valid": len(valid) / len(written), "prompts/distinct": len(set(valid)) / max(1, len(valid))}


def _written(answer: str) -> str | None:
    """Return the prompt in an answer if it can be drawn, otherwise None."""
    try:
        prompt = SHAPES_FAMILY.parse_prompt(answer).prompt
        return prompt if is_drawable(parse(prompt)) else None
    except (ParseError, GrammarError):
        return None


Subjects = Sequence[tuple[SubCategory, Any]]


def _perturbing_figures(engine: TextEngine, subjects: Subjects, rng: random.Random) -> Figures:
    kinds = [rng.choice(PERTURBATIONS[sub_category]) for sub_category, _ in subjects]
    cases = [(kind, sentence.text(), sub) for kind, (sub, sentence) in zip(kinds, subjects, strict=True)]
    answers = _answers(engine, [SHAPES_FAMILY.perturb(*case) for case in cases], 1.0, "perturb")
    good = [is_valid_perturbation(text, made, kind) for made, (kind, text, _) in zip(answers, cases, strict=True)]
    return {"perturbations/valid": float(np.mean(good))}


def _densifying_figures(engine: TextEngine, subjects: Subjects, rng: random.Random) -> Figures:
    pairs, chats = [], []
    for sub_category, sentence in subjects:
        made = pick_perturbation(sentence, sub_category, rng)
        if made is not None:
            pairs.append((sentence.text(), made.sentence.text()))
            chats.append(SHAPES_FAMILY.densify(*pairs[-1], sub_category))
    answers = _answers(engine, chats, 1.0, "dense")
    good = [_keeps_meaning(answer, pair) for answer, pair in zip(answers, pairs, strict=True)]
    return {"dense/keeps_meaning": float(np.mean(good))}


def _keeps_meaning(answer: str, pair: tuple[str, str]) -> bool:
    """Whether both dense prompts mean the same as the short ones."""
    try:
        dense = SHAPES_FAMILY.parse_dense(answer)
        return all(parse(long).meaning() == parse(short).meaning() for long, short in zip(dense, pair, strict=True))
    except (ParseError, GrammarError):
        return False


def _decomposing_figures(engine: TextEngine, subjects: Subjects) -> Figures:
    answers = _answers(engine, [SHAPES_FAMILY.decompose(sentence.text()) for _, sentence in subjects], 0.0, "ask")
    good = []
    for answer, (_, sentence) in zip(answers, subjects, strict=True):
        try:
            asked = set(SHAPES_FAMILY.parse_questions(answer))
        except ParseError:
            asked = set()
        good.append(asked == {question.text for question in questions_of(sentence)})
    return {"questions/cover": float(np.mean(good))}
