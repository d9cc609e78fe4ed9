"""Yes/no questions about every prompt and every negative prompt (OSPO, section 3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ospo_core.config.sections import QuestionsConfig
from ospo_core.engines.base import TextEngine
from ospo_core.prompts.families import AnswerKind, ParseError, PromptFamily
from ospo_core.prompts.filters import TOO_MANY_QUESTIONS
from ospo_core.prompts.generation import Instruction, Sampling, generate_with_retries, generation_counts
from ospo_core.schema import SubCategory

BASE = "base"
"""Value of column `of` for the questions of a base prompt; for a negative it is the variant, `"0"`, `"1"` or `"2"`."""

_KNOWN = frozenset(name.value for name in SubCategory)


def decompose_prompts(
    engine: TextEngine,
    family: PromptFamily,
    perturbation_rows: Sequence[Mapping[str, Any]],
    config: QuestionsConfig,
    seed: int,
    min_parsed: float = 0.0,
) -> tuple[list[dict[str, Any]], Counter[str], dict[str, float], dict[str, str]]:
    """Decompose the base prompt and the negative prompts of every item into yes/no questions.

    Each distinct text is decomposed once, however many rows contain it.

    Args:
        perturbation_rows: rows of table `perturbations`, those of one item next to each other; or rows with only
            `item_id`, `prompt` and `sub_category`, which may be of somebody else's categories.
        config: temperature and limits; an answer with more than `max_questions` questions is retried.
        seed: of the round.
        min_parsed: share of the first answers that must have the expected form.

    Returns:
        Rows of table `questions`; rows dropped, by the reason of their last attempt; counts: calls, retries, tokens,
        questions, failed answers by reason (`failed_<reason>`); one raw answer by reason for which answers failed.
    """
    subjects = _subjects(perturbation_rows)
    texts = list(dict.fromkeys(prompt for _, _, prompt in subjects))
    sub_categories = _sub_categories(perturbation_rows)

    def parse(index: int, answer: str) -> list[str]:
        questions = family.parse_questions(answer)
        if len(questions) > config.max_questions:
            raise ParseError(TOO_MANY_QUESTIONS, answer, f"more than {config.max_questions} questions")
        return questions

    instructions = [
        Instruction(("decompose", text), family.decompose(text, sub_categories.get(text))) for text in texts
    ]
    options = (config.temperature, config.max_tokens, config.attempts, config.top_p)
    sampling = Sampling(seed, *options, AnswerKind.QUESTIONS, min_parsed)
    answers = generate_with_retries(engine, family, instructions, sampling, parse)
    values, reasons = dict(zip(texts, answers.values, strict=True)), dict(zip(texts, answers.reasons, strict=True))
    rows = [
        {"item_id": item, "of": of, "prompt": prompt, "questions": values[prompt]}
        for item, of, prompt in subjects
        if values[prompt] is not None
    ]
    drops = Counter(reasons[prompt] for _, _, prompt in subjects if reasons[prompt])
    questions = float(sum(len(value) for value in answers.values if value))
    return rows, drops, generation_counts(answers) | {"questions": questions}, answers.raw


def _sub_categories(perturbation_rows: Sequence[Mapping[str, Any]]) -> dict[str, SubCategory]:
    """Return the sub-category of every text, that of its first row; texts of none of ours are omitted."""
    found: dict[str, SubCategory] = {}
    for row in perturbation_rows:
        if row["sub_category"] not in _KNOWN:
            continue
        for text in (row["prompt"], row.get("negative_prompt", row["prompt"])):
            found.setdefault(text, SubCategory(row["sub_category"]))
    return found


def _subjects(perturbation_rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return (item_id, of, prompt): each item's base prompt once, followed by its negatives, if there are any."""
    subjects: dict[tuple[str, str], str] = {}
    for row in perturbation_rows:
        subjects.setdefault((row["item_id"], BASE), row["prompt"])
        if "negative_prompt" in row:
            subjects[row["item_id"], str(row["variant"])] = row["negative_prompt"]
    return [(item, of, prompt) for (item, of), prompt in subjects.items()]
