"""Render and judge the held-out pictures of one checkpoint: rows of table `evaluation`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import EvaluationConfig
from ospo_core.evaluation.judges import Oracle, all_yes, embedded_oracle, self_vqa_scores
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
    oracle: Oracle | None = None,
) -> list[dict[str, Any]]:
    """Render `config.samples` pictures per prompt, judge them, and return rows of table `evaluation`.

    Seeds depend only on `config.seed`, the prompt's id and the sample, so two checkpoints use the same noise, whatever
    the batch size. The rows are in the order of the prompts, then of the samples.

    Args:
        loaded: the checkpoint.
        prompts: what to render.
        config: samples, guidance, temperature, batch size (of rendering and of judging) and seed.
        model_label: `parent` or `child` (`ospo_core.schema.PARENT`, `CHILD`), or any other name.
        oracle: exact judge; by default the embedded oracle for models of the family "shapes", otherwise none.
    """
    if oracle is None and loaded.family.name == "shapes":
        oracle = embedded_oracle
    wanted = [(prompt, sample) for prompt in prompts for sample in range(config.samples)]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(wanted), config.batch_size):  # few pictures are in memory at once
        batch = wanted[start : start + config.batch_size]
        texts = [prompt.prompt for prompt, _ in batch]
        seeds = [picture_seed(config, prompt.item_id, sample) for prompt, sample in batch]
        tokens = sample_images(loaded, texts, seeds, config.guidance, config.temperature, config.batch_size).tokens
        pictures = decode_tokens(loaded, tokens)
        with ThreadPoolExecutor() as pool:  # encode while the model answers
            encoded = pool.map(encode_png, pictures)
            answers = self_vqa_scores(loaded, [prompt for prompt, _ in batch], pictures, config.batch_size)
            pngs = list(encoded)
        columns = zip(batch, seeds, tokens, pictures, answers, pngs, strict=True)
        for (prompt, sample), seed, codes, picture, scores, png in columns:
            rows.append(
                {
                    "item_id": prompt.item_id,
                    "model": model_label,
                    "category": prompt.category,
                    "sub_category": prompt.sub_category,
                    "prompt": prompt.prompt,
                    "sample": sample,
                    "seed": seed,
                    "guidance": config.guidance,
                    "tokens": codes.tolist(),
                    "image": {"bytes": png, "path": f"{prompt.item_id}-{sample}.png"},
                    "vqa_score": image_score(scores),
                    "vqa_correct": all_yes(scores),
                    "oracle_correct": oracle(picture, prompt.prompt) if oracle else None,
                }
            )
    return rows


def picture_seed(config: EvaluationConfig, item_id: str, sample: int) -> int:
    """Return the seed of a prompt's sample: the same for every checkpoint and every round."""
    return derive_seed("evaluation", config.seed, item_id, sample)
