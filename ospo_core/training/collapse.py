"""The alarm for collapse: a preference loss can win its margin while the chosen images become improbable."""

from __future__ import annotations

from pydantic import BaseModel

from ospo_core.errors import TrainingError


class CollapseError(TrainingError):
    """Training was stopped because the model collapsed; the same job would collapse again."""


class CollapseAlarm(BaseModel):
    """Watches `l(y_w|x)`, the mean log-probability of the chosen images, in nats a token.

    Its fields are its whole state, so that it survives a checkpoint.

    Attributes:
        drop: distance below the first step's value that counts as fallen, nats a token.
        patience: steps in a row below that line after which training should stop.
        baseline: value of the first step; None until then.
        steps_below: length of the current run of steps below the line.
    """

    drop: float
    patience: int
    baseline: float | None = None
    steps_below: int = 0

    def observe(self, chosen_logprob: float) -> bool:
        """Take the value of one step in; return whether it lies below the line (not a number counts as below)."""
        if self.baseline is None:
            self.baseline = chosen_logprob
        above = chosen_logprob >= self.baseline - self.drop
        self.steps_below = 0 if above else self.steps_below + 1
        return not above

    @property
    def collapsed(self) -> bool:
        """Whether the model stayed below the line for `patience` steps in a row."""
        return self.steps_below >= self.patience
