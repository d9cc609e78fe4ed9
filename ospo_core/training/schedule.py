"""The learning rate as a pure function of the step (paper v2: constant; v3: warm-up, then cosine)."""

from __future__ import annotations

import math

from ospo_core.config.sections import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of `step`, counted from 0.

    It rises linearly over `warmup_fraction` of the steps, then stays or falls along a half cosine, whose last step
    has `min_learning_rate`.
    """
    peak = config.learning_rate
    warmup = round(config.warmup_fraction * config.steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, config.steps - 1 - warmup)
    floor = min(config.min_learning_rate, peak)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
