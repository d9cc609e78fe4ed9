"""Data in and out in the formats of others: datasets of Hugging Face, rows for TRL, checkpoints with a model card."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    """What an exported dataset holds beside the pairs; each is a configuration of that name."""

    TRL = "trl"
    """One preference row per pair for TRL's trainers of vision-language models: which text fits the picture."""
    PROMPTS = "prompts"
    PERTURBATIONS = "perturbations"
    QUESTIONS = "questions"
    IMAGES = "images"
    SCORES = "scores"
