"""Stage `scores`: the model, or `model.judge`, judges the model's images (docs/method.md, section 3.1).

Every image is asked the questions of its base prompt and gets its log-probability under that prompt. Only an image that
could be chosen is compared with the perturbed prompts: it gets its log-probability under each of them. Rule v2 also
needs to know which of them are clearly wrong for the chosen image, so such an image is asked their questions too. The
log-probabilities are those of the short prompts, which training uses, not of the dense ones that rendered the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import StageName, table_from_rows
from ospo_core.selection.scoring import answer_score, choice_floor, could_be_chosen, image_score
from ospo_core.stages.base import Phase, Row, ShardResult, ShardSpec, Stage
from ospo_core.stages.judge import Judge
from ospo_core.stages.model_ref import ModelRef, role_model
from ospo_core.stages.run import StageRun

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

_BASE = "base"
Answers = list[tuple[float, float]]


@dataclass(frozen=True)
class _Item:
    """One prompt with its perturbed prompts (by variant), questions (by `of`) and images."""

    prompt: str
    negatives: dict[int, str]
    questions: dict[str, list[str]]
    images: list[Row]


class ScoresStage(Stage):
    """Reads `perturbations`, `questions` and `images`, writes `scores`: one row per image."""

    name: ClassVar[StageName] = StageName.SCORES
    version: ClassVar[int] = 3
    table: ClassVar[str] = "scores"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.PERTURBATIONS, StageName.QUESTIONS, StageName.IMAGES)
    phase: ClassVar[Phase] = Phase.MODEL
    follows: ClassVar[StageName | None] = StageName.IMAGES
    independent_items: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return what decides which images are compared with the perturbed prompts."""
        selection = config.selection
        rule = selection.rule if selection.filtering else "best_of_n"  # unfiltered pairs choose a base image, too
        return {"chosen_by": rule, "floor": choice_floor(selection)}

    def judge(self, config: RoundConfig, storage: Storage, model: ModelRef) -> Judge | None:
        """Return the model that answers the questions instead of the one that drew the images; None: none does."""
        other = role_model(config, storage, model, "judge")
        return Judge(kind="model", model=other) if other is not None else None

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Score the images of one shard, so many at a time."""
        from ospo_core.models.pictures import PICTURES_IN_MEMORY

        items, judge = _items(run, spec.index), run.judge.model if run.judge is not None else None
        rows: list[dict[str, Any]] = []
        for group in _groups(items, PICTURES_IN_MEMORY) if judge is None else [items]:  # so each model is loaded once
            rows += _score(run.image_model, group, run.config, judge)
        asked = sum(len(row["answers"]) + len(row["negative_answers"]) for row in rows)
        logprobs = sum(1 + len(row["logprob_negatives"] or ()) for row in rows)
        return ShardResult(
            table=table_from_rows("scores", rows),
            items_in=len(rows),
            counts={"images": len(rows), "answers": asked, "logprobs": logprobs},
        )


STAGE = ScoresStage()


def _asks_negatives(selection: SelectionConfig) -> bool:
    """Return whether the rule needs the answers to the perturbed prompts' questions."""
    return selection.rule == "v2" and selection.filtering


def _items(run: StageRun, index: int) -> list[_Item]:
    """Read one shard of the three tables, item by item, in the order of the images."""
    questions: dict[str, dict[str, list[str]]] = {}
    for row in run.rows(StageName.QUESTIONS, index):
        questions.setdefault(row["item_id"], {})[row["of"]] = row["questions"]
    perturbed: dict[str, list[Row]] = {}
    for row in run.rows(StageName.PERTURBATIONS, index):
        perturbed.setdefault(row["item_id"], []).append(row)
    items = []
    for item, images in groupby(run.rows(StageName.IMAGES, index), key=lambda row: row["item_id"]):
        variants = sorted(perturbed[item], key=lambda row: row["variant"])
        negatives = {row["variant"]: row["negative_prompt"] for row in variants}
        items.append(_Item(variants[0]["prompt"], negatives, questions.get(item, {}), list(images)))
    return items


def _groups(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield items whose images together are at most `size`, or one item."""
    group: list[_Item] = []
    for item in items:
        if group and sum(len(other.images) for other in group) + len(item.images) > size:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _score(
    model: Callable[[ModelRef | None], UnifiedModel],
    items: Sequence[_Item],
    config: RoundConfig,
    judge: ModelRef | None = None,
) -> list[dict[str, Any]]:
    """Score the images of some items: questions, of the perturbed prompts too where they matter, log-probabilities.

    `model` loads the one that is named, or the starting one, which alone gives log-probabilities.
    """
    from ospo_core.models.pictures import decode_png, resized
    from ospo_core.models.vqa import answer_questions

    size, selection = config.scores.batch_size, config.selection
    pairs = [(item, image) for item in items for image in item.images]
    with ThreadPoolExecutor() as pool:  # zlib releases the interpreter lock
        decoded = list(pool.map(decode_png, [image["image"]["bytes"] for _, image in pairs]))
    if len(sizes := {picture.shape for picture in decoded}) > 1:
        raise StageError(
            "pictures of one round have several sizes",
            field="images.image",
            value=sorted(sizes)[:3],
            remedy="Recompute the stage that made them (--refresh images)",
        )
    asking = model(judge)
    if judge is not None:
        decoded = [resized(picture, asking.geometry.height, asking.geometry.width) for picture in decoded]
    pictures = np.stack(decoded)
    asked = [item.questions.get(_BASE, []) for item, _ in pairs]

    def could(index: int, given: Sequence[tuple[float, float]]) -> bool:
        return could_be_chosen(pairs[index][1]["side"], [answer_score(*reply) for reply in given], selection)

    def follow_up(index: int, given: Sequence[tuple[float, float]]) -> list[str]:
        return [text for _, text in _negative_questions(pairs[index][0])] if could(index, given) else []

    replies = answer_questions(asking, pictures, asked, size, follow_up if _asks_negatives(selection) else None)
    answers = [given[: len(questions)] for given, questions in zip(replies, asked, strict=True)]
    negative = [given[len(questions) :] for given, questions in zip(replies, asked, strict=True)]
    further = [_negative_questions(item) if found else [] for (item, _), found in zip(pairs, negative, strict=True)]
    possible = [could(index, given) for index, given in enumerate(answers)]
    rows, logprob = [], _logprobs(model(None), pairs, possible, size)
    columns = zip(pairs, asked, answers, further, negative, logprob, strict=True)
    for (_, image), questions, given, others, found, logprobs in columns:
        rows.append(
            {
                **{name: image[name] for name in ("item_id", "variant", "side")},
                "answers": [_answer(question, reply) for question, reply in zip(questions, given, strict=True)],
                "negative_answers": [
                    {"variant": variant, **_answer(question, reply)}
                    for (variant, question), reply in zip(others, found, strict=True)
                ],
                "score": image_score([answer_score(*reply) for reply in given]),
                "logprob_base": logprobs[0],
                "logprob_negatives": logprobs[1:] or None,
            }
        )
    return rows


def _negative_questions(item: _Item) -> list[tuple[int, str]]:
    """Return (variant, question) of every perturbed prompt."""
    return [(variant, text) for variant in item.negatives for text in item.questions.get(str(variant), [])]


def _answer(question: str, reply: tuple[float, float]) -> dict[str, Any]:
    return {"question": question, "p_yes": float(reply[0]), "p_no": float(reply[1])}


def _logprobs(
    model: UnifiedModel, pairs: Sequence[tuple[_Item, Row]], possible: Sequence[bool], size: int
) -> list[list[float]]:
    """Return for every image `l(y|x)` and, if it is possible, `l(y|x~)` of each variant; in nats per token."""
    from ospo_core.models.logprobs import mean_logprob

    prompts = [
        [item.prompt, *item.negatives.values()] if could else [item.prompt]
        for (item, _), could in zip(pairs, possible, strict=True)
    ]
    texts = [text for some in prompts for text in some]
    codes = np.stack([np.asarray(image["tokens"], dtype=np.uint16) for _, image in pairs])
    tokens = np.repeat(codes, [len(some) for some in prompts], axis=0)
    values = iter(mean_logprob(model, texts, tokens, size).tolist())
    return [[next(values) for _ in some] for some in prompts]
