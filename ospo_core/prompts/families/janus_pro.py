"""Text formats of Janus-Pro: its chat format, and few-shot instructions whose answers are labelled lines."""

from __future__ import annotations

from collections.abc import Sequence

from ospo_core.prompts.families import janus_pro_texts as texts
from ospo_core.prompts.families.base import IMAGE_MARKER, PromptAnswer
from ospo_core.prompts.families.janus_pro_answers import JanusProAnswers
from ospo_core.schema import PerturbationKind, SubCategory


class JanusProFamily(JanusProAnswers):
    """Janus-Pro 1B and 7B (deepseek-community's checkpoints in transformers' format)."""

    name = "janus_pro"
    stop = ("<|User|>", "\n\n")
    yes = ("yes", "Yes", " yes", " Yes")
    no = ("no", "No", " no", " No")

    def chat_text(self, instruction: str) -> str:
        """Return the system prompt, the user's turn and the start of the assistant's turn."""
        return f"{texts.SYSTEM}<|User|>: {instruction}\n\n<|Assistant|>:"

    def vqa_text(self, question: str) -> str:
        """Return the chat text of a picture, a newline and a question."""
        text = texts.VQA.format(question=question)
        return self.chat_text(f"<begin_of_image>{IMAGE_MARKER}<end_of_image>\n{text}")

    def generation_text(self, prompt: str) -> str:
        """Return the chat without a system prompt, as Janus was trained for generation, and the begin-of-image tag."""
        return f"<|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>"

    def seed_examples(self, sub_category: SubCategory) -> list[PromptAnswer]:
        """Return the hand-written prompts of `janus_pro_texts`."""
        return list(texts.SEEDS[sub_category])

    def write_prompt(self, sub_category: SubCategory, examples: Sequence[PromptAnswer]) -> str:
        """Return the few-shot instruction, whose examples have prompt, concepts and relations."""
        shown = "\n\n".join(self.format_prompt(example) for example in examples)
        return texts.WRITE.format(task=texts.TASKS[sub_category], examples=shown)

    def perturb(self, kind: PerturbationKind, prompt: str, sub_category: SubCategory) -> str:
        """Return the few-shot instruction to change one detail."""
        pairs = texts.EDIT_EXAMPLES[kind]
        shown = "\n\n".join(f"Base: {base}\n{self.format_perturbation(changed)}" for base, changed in pairs)
        task, edit = texts.TASKS[sub_category], texts.EDITS[kind]
        return texts.PERTURB.format(task=task, edit=edit, examples=shown, prompt=prompt)

    def densify(self, prompt: str, negative: str) -> str:
        """Return the instruction to expand both prompts into one scene."""
        return texts.DENSIFY.format(prompt=prompt, negative=negative)

    def decompose(self, prompt: str) -> str:
        """Return the instruction to write questions about everything in a prompt."""
        return texts.DECOMPOSE.format(prompt=prompt)
