"""Base prompts, generated few-shot until a quota is met or its attempts are used up (OSPO, section 3.1)."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ospo_core.artifacts.ids import derive_seed, item_id
from ospo_core.config.sections import PromptsConfig
from ospo_core.engines.base import TextEngine
from ospo_core.prompts.failures import check_parsed, printable
from ospo_core.prompts.families import AnswerKind, ParseError, PromptAnswer, PromptFamily
from ospo_core.prompts.filters import SURPLUS, ContaminationCheck, Deduplicator, number_above_four
from ospo_core.prompts.generation import Instruction, Sampling, whole_answer
from ospo_core.schema import SubCategory, category_of

OVERSAMPLING = 1.5
"""Calls per prompt still missing in a pass; what exceeds the quota is dropped as surplus."""
SMALLEST_PASS = 16
"""Minimum calls per pass, so that the last missing prompts are not requested one by one."""


@dataclass
class GeneratedPrompts:
    """The accepted prompts of one sub-category, and why the other answers were dropped.

    Args:
        quota: prompts wanted.
        rows: rows of table `prompts`, in order of acceptance.
        drops: answers dropped, by reason; with the rows they add up to `calls`.
        calls: requests made.
        tokens: tokens generated.
        raw: one raw answer by reason for dropping it.
    """

    sub_category: SubCategory
    quota: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    tokens: int = 0
    raw: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Prompts short of the quota."""
        return self.quota - len(self.rows)


def prompt_row(answer: PromptAnswer, sub_category: SubCategory) -> dict[str, Any]:
    """Return the row of table `prompts`; its id depends only on sub-category and text."""
    return {
        "item_id": item_id(sub_category.value, answer.prompt),
        "category": category_of(sub_category).value,
        "sub_category": sub_category.value,
        "prompt": answer.prompt,
        "concepts": list(answer.concepts),
        "relations": [list(relation) for relation in answer.relations],
    }


def write_prompts(
    engine: TextEngine,
    family: PromptFamily,
    sub_category: SubCategory,
    quota: int,
    config: PromptsConfig,
    seed: int,
    contamination: ContaminationCheck | None = None,
    taken: Deduplicator | None = None,
    min_parsed: float = 0.0,
) -> GeneratedPrompts:
    """Generate prompts until `quota` are accepted or `quota x attempts_per_prompt` calls have been made.

    A call's seed depends on (seed, sub-category, index of the call), so the result does not depend on how many calls
    the engine handles at once. The caller decides what an unmet quota means: see `GeneratedPrompts.missing`.

    Args:
        quota: prompts wanted; may be 0.
        contamination: evaluation prompts to keep out.
        taken: prompts that exist already; none of them is accepted again.
        min_parsed: share of the answers of the first pass that must have the expected form.

    Raises:
        StageError: fewer have it.
    """
    size = config.examples_complex if sub_category is SubCategory.COMPLEX else config.examples
    pool = ExamplePool(family, sub_category, size, seed, config.redraw_every)
    duplicates = Deduplicator(config.near_duplicate_similarity, earlier=taken)
    checks = (number_above_four, contamination or ContaminationCheck(), duplicates)
    sampling = Sampling(seed, config.temperature, config.max_tokens, 1, config.top_p, AnswerKind.PROMPT)
    result, accepted = GeneratedPrompts(sub_category, quota), list[PromptAnswer]()
    limit = quota * config.attempts_per_prompt
    while result.missing > 0 and result.calls < limit:
        start = result.calls
        chat = family.write_prompt(sub_category, pool.at(start, accepted))
        calls = max(SMALLEST_PASS, math.ceil(result.missing * OVERSAMPLING))
        end = min(start + calls, limit, pool.next_redraw(start))
        instructions = [Instruction((sub_category.value, call), chat) for call in range(start, end)]
        for completion in engine.generate([sampling.request(family, one) for one in instructions]):
            result.calls += 1
            result.tokens += completion.tokens
            if not result.missing:
                result.drops[SURPLUS] += 1
                continue
            try:
                answer = family.parse_prompt(whole_answer(chat, completion))
            except ParseError as error:
                result.drops[error.reason] += 1
                result.raw.setdefault(error.reason, printable(error.answer))
                continue
            if reason := next(filter(None, (check(answer.prompt) for check in checks)), None):
                result.drops[reason] += 1
                result.raw.setdefault(reason, printable(answer.prompt))
                continue
            accepted.append(answer)
            result.rows.append(prompt_row(answer, sub_category))
        if not start:
            read = result.calls - result.drops[SURPLUS]
            check_parsed(f"{sampling.kind}, {sub_category}", read, result.drops, result.raw, min_parsed)
    return result


class ExamplePool:
    """Few-shot examples, redrawn every `redraw_every` calls from accepted prompts so that prompts do not collapse.

    While there are too few accepted prompts, the family's hand-written seeds fill the gap.

    Args:
        size: examples per call.
        seed: of the round; the seed of each draw is derived from it.
        redraw_every: calls that share one draw.
    """

    def __init__(
        self, family: PromptFamily, sub_category: SubCategory, size: int, seed: int, redraw_every: int
    ) -> None:
        self._seeds = family.seed_examples(sub_category)
        self._sub_category, self._size, self._seed = sub_category, size, seed
        self.redraw_every = redraw_every
        self._drawn: dict[int, list[PromptAnswer]] = {}

    def next_redraw(self, call: int) -> int:
        """Return the first call after `call` that uses other examples."""
        return (call // self.redraw_every + 1) * self.redraw_every

    def at(self, call: int, accepted: Sequence[PromptAnswer]) -> list[PromptAnswer]:
        """Return the examples for a call; `accepted` matters only for the first call of a draw."""
        epoch = call // self.redraw_every
        if epoch not in self._drawn:
            self._drawn = {epoch: self._draw(epoch, accepted)}
        return self._drawn[epoch]

    def _draw(self, epoch: int, accepted: Sequence[PromptAnswer]) -> list[PromptAnswer]:
        """Draw from the accepted prompts, then from the other seeds, and shuffle."""
        noise = random.Random(derive_seed(self._seed, self._sub_category.value, "examples", epoch))
        drawn = noise.sample(list(accepted), min(self._size, len(accepted)))
        shown = {answer.prompt for answer in drawn}
        spare = [answer for answer in self._seeds if answer.prompt not in shown]
        drawn += noise.sample(spare, min(self._size - len(drawn), len(spare)))
        noise.shuffle(drawn)
        return drawn
