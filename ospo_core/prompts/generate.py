"""The three text stages as pure functions over an engine; the stages of a round call these."""

from ospo_core.prompts.decomposing import decompose_prompts
from ospo_core.prompts.perturbing import perturb_prompts
from ospo_core.prompts.writing import GeneratedPrompts, write_prompts

__all__ = ["GeneratedPrompts", "decompose_prompts", "perturb_prompts", "write_prompts"]
