"""Render and judge the held-out pictures of one checkpoint: rows of table `evaluation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import EvaluationConfig
from ospo_core.evaluation.judges import Judge, OracleJudge, SelfVqaJudge, all_yes
from ospo_core.evaluation.prompts import EvalPrompt
from ospo_core.models.pictures import decode_tokens, encode_png
from ospo_core.models.sampling import sample_images
from ospo_core.selection.scoring import image_score

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel


def evaluate_model(
    loaded: UnifiedModel,
    prompts: Sequence[EvalPrompt],
    config: EvaluationConfig,
    model_label: str,
    oracle: Judge | None = None,
) -> list[dict[str, Any]]:
    """Render `config.samples` pictures per prompt, judge them, and return rows of table `evaluation`.

    Seeds depend only on `config.seed`, the prompt's id and the sample, so two checkpoints use the same noise, whatever
    the batch size. The rows are in the order of the prompts, then of the samples.

    Args:
        loaded: the checkpoint.
        prompts: what to render.
        config: samples, guidance, temperature, batch size and seed.
        model_label: `parent` or `child` (`ospo_core.schema.PARENT`, `CHILD`), or any other name.
        oracle: exact judge; by default the embedded oracle for models of the family "shapes", otherwise none.
    """
    if oracle is None and loaded.family.name == "shapes":
        oracle = OracleJudge()
    judge = SelfVqaJudge(loaded, {prompt.prompt: prompt.questions for prompt in prompts}, config.batch_size)
    rows: list[dict[str, Any]] = []
    for batch in _batches(prompts, config):
        tokens, pictures, base = _draw(loaded, batch, config, model_label)
        answers = judge.scores([prompt.prompt for prompt, _ in batch], pictures)
        for row, codes, picture, scores in zip(base, tokens, pictures, answers, strict=True):
            verdict = oracle.judge(row["prompt"], picture[None])[0] if oracle else None
            rows.append({**row, **_judged(codes, picture, scores, verdict, f"{row['item_id']}-{row['sample']}.png")})
    return rows


def picture_seed(config: EvaluationConfig, item_id: str, sample: int) -> int:
    """Return the seed of a prompt's sample: the same for every checkpoint and every round."""
    return derive_seed("evaluation", config.seed, item_id, sample)


def _batches(prompts: Sequence[EvalPrompt], config: EvaluationConfig) -> Iterator[list[tuple[EvalPrompt, int]]]:
    """Yield (prompt, sample) in batches of `config.batch_size`, so that few pictures are in memory at once."""
    pictures = [(prompt, sample) for prompt in prompts for sample in range(config.samples)]
    for start in range(0, len(pictures), config.batch_size):
        yield pictures[start : start + config.batch_size]


def _draw(
    loaded: UnifiedModel, batch: Sequence[tuple[EvalPrompt, int]], config: EvaluationConfig, model_label: str
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], list[dict[str, Any]]]:
    """Return tokens [B, T], pictures [B, H, W, 3] and the columns that are known before judging."""
    base: list[dict[str, Any]] = [
        {
            "item_id": prompt.item_id,
            "model": model_label,
            "category": prompt.category,
            "sub_category": prompt.sub_category,
            "prompt": prompt.prompt,
            "sample": sample,
            "seed": picture_seed(config, prompt.item_id, sample),
            "guidance": config.guidance,
        }
        for prompt, sample in batch
    ]
    texts, seeds = [prompt.prompt for prompt, _ in batch], [row["seed"] for row in base]
    sampled = sample_images(loaded, texts, seeds, config.guidance, config.temperature, config.batch_size)
    return sampled.tokens, decode_tokens(loaded, sampled.tokens), base


def _judged(
    codes: NDArray[np.uint16], picture: NDArray[np.uint8], scores: Sequence[float], verdict: bool | None, name: str
) -> dict[str, Any]:
    """Return the columns that rendering and judging add to a row."""
    return {
        "tokens": codes.tolist(),
        "image": {"bytes": encode_png(picture), "path": name},
        "vqa_score": image_score(scores),
        "vqa_correct": all_yes(scores),
        "oracle_correct": verdict,
    }
