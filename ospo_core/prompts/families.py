"""The one place that knows which model families there are."""

from __future__ import annotations

from difflib import get_close_matches

from ospo_core.errors import ConfigError
from ospo_core.prompts.answers import ParseError, PromptAnswer
from ospo_core.prompts.base_family import IMAGE_MARKER, PromptFamily
from ospo_core.prompts.janus_family import JanusProFamily
from ospo_core.prompts.shapes_family import ShapesFamily

__all__ = ["FAMILIES", "IMAGE_MARKER", "ParseError", "PromptAnswer", "PromptFamily", "family"]

FAMILIES: dict[str, PromptFamily] = {known.name: known for known in (ShapesFamily(), JanusProFamily())}
"""Name to family, as `model.family` of a profile has it."""


def family(name: str) -> PromptFamily:
    """Return the family of that name.

    Raises:
        ConfigError: there is no such family.
    """
    if name not in FAMILIES:
        close = get_close_matches(name, FAMILIES, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(FAMILIES)}"
        raise ConfigError("unknown model family", field="model.family", value=name, remedy=hint)
    return FAMILIES[name]
