"""Detection of collapse: a preference loss can gain its margin while the chosen images become improbable."""

from __future__ import annotations

from pydantic import BaseModel

from ospo_core.errors import TrainingError


class CollapseError(TrainingError):
    """Training stopped because the model collapsed; the same job would collapse again."""


class CollapseAlarm(BaseModel):
    """Watches `l(y_w|x)`, the mean log-probability of the chosen images, in nats per token.

    Its fields are its whole state, so a checkpoint can store it.

    Attributes:
        drop: distance below the first step's value that raises the alarm, nats per token.
        patience: consecutive steps below that line after which training should stop.
        baseline: value of the first step; None until then.
        steps_below: consecutive steps below the line up to now.
    """

    drop: float
    patience: int
    baseline: float | None = None
    steps_below: int = 0

    def observe(self, chosen_logprob: float) -> bool:
        """Record the value of one step; return whether it is below the line (NaN counts as below)."""
        if self.baseline is None:
            self.baseline = chosen_logprob
        above = chosen_logprob >= self.baseline - self.drop
        self.steps_below = 0 if above else self.steps_below + 1
        return not above

    @property
    def collapsed(self) -> bool:
        """Whether the model stayed below the line for `patience` consecutive steps."""
        return self.steps_below >= self.patience
