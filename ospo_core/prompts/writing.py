"""Initial prompts, written few-shot until a quota is met or its attempts are spent (OSPO, section 3.1)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ospo_core.artifacts.ids import item_id
from ospo_core.config.sections import PromptsConfig
from ospo_core.engines.base import Completion, TextEngine
from ospo_core.prompts.answers import ParseError, PromptAnswer
from ospo_core.prompts.base_family import PromptFamily
from ospo_core.prompts.examples import ExamplePool
from ospo_core.prompts.filters import SURPLUS, ContaminationCheck, Deduplicator, number_above_four
from ospo_core.prompts.generation import Ask, Sampling, complete_text
from ospo_core.schema import SubCategory, category_of

OVERSAMPLING = 1.5
"""Calls of a pass for each prompt that is still missing; what is too much is dropped as surplus."""
SMALLEST_PASS = 16
"""Calls of a pass at least, so that the last missing prompts are not asked for one by one."""


@dataclass
class GeneratedPrompts:
    """The prompts of one sub-category and what became of the rest.

    Args:
        sub_category: of the prompts.
        quota: prompts wanted.
        rows: rows of table `prompts`, in order of acceptance.
        drops: answers dropped, by reason; with the rows they add up to `calls`.
        calls: answers asked for.
        tokens: tokens generated.
    """

    sub_category: SubCategory
    quota: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    tokens: int = 0

    @property
    def missing(self) -> int:
        """Prompts short of the quota."""
        return self.quota - len(self.rows)

    @property
    def shortfall(self) -> str:
        """Return one line that says how far short the sub-category fell and why; empty when the quota is met."""
        if not self.missing:
            return ""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.drops.most_common())
        kept = f"{len(self.rows)} of {self.quota} prompts after {self.calls} calls"
        return f"{self.sub_category.value}: {kept} ({reasons})"


def prompt_row(answer: PromptAnswer, sub_category: SubCategory) -> dict[str, Any]:
    """Return the row of table `prompts`; its id depends on sub-category and text alone."""
    return {
        "item_id": item_id(sub_category.value, answer.prompt),
        "category": category_of(sub_category).value,
        "sub_category": sub_category.value,
        "prompt": answer.prompt,
        "concepts": list(answer.concepts),
        "relations": [list(relation) for relation in answer.relations],
    }


class _Gate:
    """Lets a written prompt through, or raises ParseError with the reason why not."""

    def __init__(
        self, family: PromptFamily, similarity: float, contamination: ContaminationCheck, taken: Deduplicator | None
    ) -> None:
        self._family, self._contamination = family, contamination
        self._duplicates = Deduplicator(similarity, earlier=taken)

    def __call__(self, completion: Completion) -> PromptAnswer:
        answer = self._family.parse_prompt(complete_text(completion))
        for check in (number_above_four, self._contamination, self._duplicates):
            if reason := check(answer.prompt):
                raise ParseError(reason, answer.prompt, "the prompt is not wanted")
        return answer


def write_prompts(
    engine: TextEngine,
    family: PromptFamily,
    sub_category: SubCategory,
    quota: int,
    config: PromptsConfig,
    seed: int,
    contamination: ContaminationCheck | None = None,
    taken: Deduplicator | None = None,
) -> GeneratedPrompts:
    """Write prompts until `quota` are accepted or `quota x attempts_per_prompt` calls are spent.

    A call's seed comes from (seed, sub-category, number of the call), so that nothing depends on how many calls the
    engine takes at once. An unmet quota is for the caller to judge: `GeneratedPrompts.missing` and `.shortfall`.

    Args:
        engine: answers the calls.
        family: instruction, answer format and seeds.
        sub_category: what to write about.
        quota: prompts wanted; 0 gives none.
        config: temperatures, limits and filters.
        seed: of the round.
        contamination: evaluation prompts to keep out.
        taken: knows the prompts that are there already; none of them is written again.
    """
    size = config.examples_complex if sub_category is SubCategory.COMPLEX else config.examples
    pool = ExamplePool(family, sub_category, size, seed, config.redraw_every)
    gate = _Gate(family, config.near_duplicate_similarity, contamination or ContaminationCheck(), taken)
    sampling = Sampling(seed, config.temperature, config.max_tokens, attempts=1)
    result, accepted = GeneratedPrompts(sub_category, quota), list[PromptAnswer]()
    limit = quota * config.attempts_per_prompt
    while result.missing > 0 and result.calls < limit:
        instruction = family.write_prompt(sub_category, pool.at(result.calls, accepted))
        end = min(_end_of_pass(result), limit, pool.next_redraw(result.calls))
        asks = [Ask((sub_category.value, call), instruction) for call in range(result.calls, end)]
        for completion in engine.generate([sampling.request(family, ask) for ask in asks]):
            _take(completion, gate, result, accepted)
    return result


def _end_of_pass(result: GeneratedPrompts) -> int:
    """Return the call before which the next pass ends, limits apart."""
    return result.calls + max(SMALLEST_PASS, math.ceil(result.missing * OVERSAMPLING))


def _take(completion: Completion, gate: _Gate, result: GeneratedPrompts, accepted: list[PromptAnswer]) -> None:
    """Accept one answer or count why it is dropped."""
    result.calls += 1
    result.tokens += completion.tokens
    if not result.missing:
        result.drops[SURPLUS] += 1
        return
    try:
        answer = gate(completion)
    except ParseError as error:
        result.drops[error.reason] += 1
        return
    accepted.append(answer)
    result.rows.append(prompt_row(answer, result.sub_category))
