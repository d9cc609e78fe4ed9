"""The text side of each model family: chat format, instructions, answer formats and few-shot examples."""

from __future__ import annotations

from difflib import get_close_matches

from ospo_core.errors import ConfigError
from ospo_core.prompts.families.base import (
    IMAGE_MARKER,
    AnswerKind,
    Chat,
    ParseError,
    PromptAnswer,
    PromptFamily,
    Relation,
)
from ospo_core.prompts.families.emu3 import Emu3Family
from ospo_core.prompts.families.janus_pro import JanusProFamily
from ospo_core.prompts.families.shapes import ShapesFamily

__all__ = [
    "FAMILIES",
    "IMAGE_MARKER",
    "AnswerKind",
    "Chat",
    "ParseError",
    "PromptAnswer",
    "PromptFamily",
    "Relation",
    "family",
]

FAMILIES: dict[str, PromptFamily] = {known.name: known for known in (ShapesFamily(), JanusProFamily(), Emu3Family())}
"""Families by name; `model.family` of a profile is one of these names."""


def family(name: str) -> PromptFamily:
    """Return the family with this name.

    Raises:
        ConfigError: there is no such family.
    """
    if name not in FAMILIES:
        close = get_close_matches(name, FAMILIES, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(FAMILIES)}"
        raise ConfigError("unknown model family", field="model.family", value=name, remedy=hint)
    return FAMILIES[name]
