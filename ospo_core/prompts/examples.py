"""Few-shot examples, drawn anew from accepted prompts so that the prompts do not collapse (OSPO, section 3.1)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ospo_core.artifacts.ids import derive_seed
from ospo_core.prompts.answers import PromptAnswer
from ospo_core.prompts.base_family import PromptFamily
from ospo_core.schema import SubCategory


class ExamplePool:
    """The examples shown in a call; they change only every `redraw_every` calls.

    A draw takes accepted prompts; while there are too few of them, the family's hand-written seeds fill it up.

    Args:
        family: where the seeds come from.
        sub_category: of the prompts.
        size: examples a call.
        seed: of the round; each draw has its own, derived from it.
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
        """Return the first call after `call` that shows other examples."""
        return (call // self.redraw_every + 1) * self.redraw_every

    def at(self, call: int, accepted: Sequence[PromptAnswer]) -> list[PromptAnswer]:
        """Return the examples for a call; `accepted` matters only for the first call of a draw."""
        epoch = call // self.redraw_every
        if epoch not in self._drawn:
            self._drawn = {epoch: self._draw(epoch, accepted)}
        return self._drawn[epoch]

    def _draw(self, epoch: int, accepted: Sequence[PromptAnswer]) -> list[PromptAnswer]:
        """Draw from the accepted prompts, then from the seeds that are not among them, in a shuffled order."""
        noise = random.Random(derive_seed(self._seed, self._sub_category.value, "examples", epoch))
        drawn = noise.sample(list(accepted), min(self._size, len(accepted)))
        shown = {answer.prompt for answer in drawn}
        spare = [answer for answer in self._seeds if answer.prompt not in shown]
        drawn += noise.sample(spare, min(self._size - len(drawn), len(spare)))
        noise.shuffle(drawn)
        return drawn
