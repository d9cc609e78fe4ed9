"""Numbers of a configuration, with bounds: what lies beyond them can only be a slip, and fails far from its cause."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(gt=0, lt=2**31)]
"""A number of things; columns of 32 bits hold it."""
Quota = Annotated[int, Field(ge=0, le=10**7)]
"""Prompts of one sub-category."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""A seed; JSON of Prefect and columns of 64 bits hold it."""
Factor = Annotated[float, Field(ge=0.0, le=1e6)]
"""A weight, or a temperature that may be 0."""
Scale = Annotated[float, Field(gt=0.0, le=1e6)]
"""A factor or a temperature above 0."""
Margin = Annotated[float, Field(ge=-1e6, le=1e6)]
"""A difference of log-probabilities."""
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A share below 1: what a running mean keeps in every step, or what dropout clears."""
Speed = Annotated[float, Field(gt=0.0, le=1e15)]
"""Things per second."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share."""
Nucleus = Annotated[float, Field(gt=0.0, le=1.0)]
"""Probability of the tokens that sampling draws from, the most probable first; 1 draws from all."""
