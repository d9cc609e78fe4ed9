"""Yes/no questions about every prompt and every negative prompt (OSPO, section 3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ospo_core.config.sections import QuestionsConfig
from ospo_core.engines.base import TextEngine
from ospo_core.prompts.answers import ParseError
from ospo_core.prompts.base_family import PromptFamily
from ospo_core.prompts.filters import TOO_MANY_QUESTIONS
from ospo_core.prompts.generation import Ask, Asked, Sampling, ask_all, costs

BASE = "base"
"""Value of `of` for the questions of a base prompt; those of a negative have its variant, `"0"`, `"1"` or `"2"`."""


def _subjects(perturbation_rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return (item_id, of, prompt): each item's base prompt once, followed by its negatives."""
    subjects: dict[tuple[str, str], str] = {}
    for row in perturbation_rows:
        subjects.setdefault((row["item_id"], BASE), row["prompt"])
        subjects[row["item_id"], str(row["variant"])] = row["negative_prompt"]
    return [(item, of, prompt) for (item, of), prompt in subjects.items()]


def decompose_prompts(
    engine: TextEngine,
    family: PromptFamily,
    perturbation_rows: Sequence[Mapping[str, Any]],
    config: QuestionsConfig,
    seed: int,
) -> tuple[list[dict[str, Any]], Counter[str], dict[str, float]]:
    """Decompose the base prompt and the negative prompts of every item into yes/no questions.

    The same text is asked about once, whatever the number of rows that hold it.

    Args:
        engine: answers the calls; all open ones go in one call of it.
        family: instruction and answer format.
        perturbation_rows: rows of table `perturbations`, those of an item one after another.
        config: temperature and limits; an answer with more than `max_questions` is asked for again.
        seed: of the round.

    Returns:
        Rows of table `questions`; rows dropped, by the reason of their last attempt; counts: calls, retries, tokens,
        questions, failed answers by reason (`failed_<reason>`).
    """
    subjects = _subjects(perturbation_rows)
    texts = list(dict.fromkeys(prompt for _, _, prompt in subjects))
    asked = _ask(engine, family, texts, config, seed)
    values, reasons = dict(zip(texts, asked.values, strict=True)), dict(zip(texts, asked.reasons, strict=True))
    rows = [
        {"item_id": item, "of": of, "prompt": prompt, "questions": values[prompt]}
        for item, of, prompt in subjects
        if values[prompt] is not None
    ]
    drops = Counter(reasons[prompt] for _, _, prompt in subjects if reasons[prompt])
    counts = costs(asked) | {"questions": float(sum(len(value) for value in asked.values if value))}
    return rows, drops, counts


def _ask(
    engine: TextEngine, family: PromptFamily, texts: Sequence[str], config: QuestionsConfig, seed: int
) -> Asked[list[str]]:
    """Ask for the questions about each text."""

    def read(index: int, answer: str) -> list[str]:
        questions = family.parse_questions(answer)
        if len(questions) > config.max_questions:
            raise ParseError(TOO_MANY_QUESTIONS, answer, f"more than {config.max_questions} questions")
        return questions

    asks = [Ask(("decompose", text), family.decompose(text)) for text in texts]
    sampling = Sampling(seed, config.temperature, config.max_tokens, config.attempts)
    return ask_all(engine, family, asks, sampling, read)
