"""Draw the held-out pictures of a checkpoint, and judge them: rows of table `evaluation`.

The two steps are apart, because the judge is another model than those that draw, and only one of them fits into memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import EvaluationConfig
from ospo_core.evaluation.judges import Oracle, PictureJudge, all_yes, embedded_oracle
from ospo_core.evaluation.prompts import EvalPrompt
from ospo_core.models.pictures import PICTURES_IN_MEMORY, decode_tokens, encode_png
from ospo_core.models.sampling import sample_images
from ospo_core.selection.scoring import answer_score, image_score

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel


def draw_pictures(
    loaded: UnifiedModel,
    prompts: Sequence[EvalPrompt],
    config: EvaluationConfig,
    model_label: str,
    oracle: Oracle | None = None,
) -> list[dict[str, Any]]:
    """Draw `config.samples` pictures per prompt; return rows of table `evaluation` that await the judge.

    Seeds depend only on `config.seed`, the prompt's id and the sample, so two checkpoints use the same noise, whatever
    the batch size. The rows are in the order of the prompts, then of the samples.

    Args:
        loaded: the checkpoint.
        prompts: what to draw.
        config: samples, guidance, temperature, batch size and seed.
        model_label: `parent` or `child` (`ospo_core.schema.PARENT`, `CHILD`), or any other name.
        oracle: exact judge; by default the embedded oracle for models of the family "shapes", otherwise none.
    """
    if oracle is None and loaded.family.name == "shapes":
        oracle = embedded_oracle
    wanted = [(prompt, sample) for prompt in prompts for sample in range(config.samples)]
    rows: list[dict[str, Any]] = []
    size = max(PICTURES_IN_MEMORY, config.batch_size)
    with ThreadPoolExecutor() as pool:  # pictures are encoded while the next ones are drawn
        encoded: list[Future[bytes]] = []
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            texts = [prompt.prompt for prompt, _ in batch]
            seeds = [picture_seed(config, prompt.item_id, sample) for prompt, sample in batch]
            tokens = sample_images(loaded, texts, seeds, config.guidance, config.temperature, config.batch_size).tokens
            pictures = decode_tokens(loaded, tokens)
            encoded += [pool.submit(encode_png, picture) for picture in pictures]
            for (prompt, sample), seed, codes, picture in zip(batch, seeds, tokens, pictures, strict=True):
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
                        "image": {"bytes": b"", "path": f"{prompt.item_id}-{sample}.png"},
                        "answers": None,
                        "vqa_score": None,
                        "vqa_correct": None,
                        "oracle_correct": oracle(picture, prompt.prompt) if oracle else None,
                    }
                )
        for row, png in zip(rows, encoded, strict=True):
            row["image"]["bytes"] = png.result()
    return rows


def judge_pictures(
    judge: PictureJudge, rows: Sequence[Mapping[str, Any]], questions: Mapping[str, Sequence[str]], batch_size: int
) -> list[dict[str, Any]]:
    """Return the rows of `draw_pictures` with the judge's answers.

    `vqa_score` is `S`, the mean `s_k`; `vqa_correct` is whether every question is answered yes (docs/method.md,
    section 5.1).

    Args:
        judge: who answers.
        rows: what was drawn.
        questions: of each prompt, by `item_id`; never empty.
        batch_size: pictures judged together.
    """
    judged: list[dict[str, Any]] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        asked = [questions[row["item_id"]] for row in batch]
        given = judge.answer([row["image"]["bytes"] for row in batch], asked)
        for row, texts, answers in zip(batch, asked, given, strict=True):
            scores = [answer_score(p_yes, p_no) for p_yes, p_no in answers]
            named = [
                {"question": text, "p_yes": p_yes, "p_no": p_no}
                for text, (p_yes, p_no) in zip(texts, answers, strict=True)
            ]
            verdict = {"answers": named, "vqa_score": image_score(scores), "vqa_correct": all_yes(scores)}
            judged.append({**row, **verdict})
    return judged


def picture_seed(config: EvaluationConfig, item_id: str, sample: int) -> int:
    """Return the seed of a prompt's sample: the same for every checkpoint and every round."""
    return derive_seed("evaluation", config.seed, item_id, sample)
