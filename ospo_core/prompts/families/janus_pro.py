"""Text formats of Janus-Pro: its chat format, and few-shot instructions whose answers are labelled lines."""

from __future__ import annotations

from collections.abc import Sequence

from ospo_core.prompts.families import janus_pro_texts as texts
from ospo_core.prompts.families.base import IMAGE_MARKER, Chat, PromptAnswer
from ospo_core.prompts.families.janus_pro_answers import JanusProAnswers
from ospo_core.schema import PerturbationKind, SubCategory

END_OF_ANSWER = "<\uff5cend\u2581of\u2581sentence\uff5c>"
"""The token that ended every answer of a chat when Janus was trained (DeepSeek's conversation template)."""


class JanusProFamily(JanusProAnswers):
    """Janus-Pro 1B and 7B (deepseek-community's checkpoints in transformers' format)."""

    name = "janus_pro"
    version = 2
    yes = ("yes", "Yes", " yes", " Yes")
    no = ("no", "No", " no", " No")

    def chat_text(self, chat: Chat) -> str:
        """Return the system prompt, the turns of user and assistant, and the opening of the assistant's answer."""
        turns = "".join(
            f"<|User|>: {asked}\n\n<|Assistant|>: {answer}{END_OF_ANSWER}" for asked, answer in chat.examples
        )
        opening = f" {chat.opening}" if chat.opening else ""
        return f"{texts.SYSTEM}{turns}<|User|>: {chat.instruction}\n\n<|Assistant|>:{opening}"

    def vqa_text(self, question: str) -> str:
        """Return the chat text of a picture, a newline and a question."""
        text = texts.VQA.format(question=question)
        return self.chat_text(Chat(f"<begin_of_image>{IMAGE_MARKER}<end_of_image>\n{text}"))

    def generation_text(self, prompt: str) -> str:
        """Return the chat without a system prompt, as Janus was trained for generation, and the begin-of-image tag."""
        return f"<|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>"

    def seed_examples(self, sub_category: SubCategory) -> list[PromptAnswer]:
        """Return the hand-written prompts of `janus_pro_data/prompts.yaml`; more than one call shows."""
        return list(texts.prompt_texts().sub_categories[sub_category].examples)

    def write_prompt(self, sub_category: SubCategory, examples: Sequence[PromptAnswer]) -> Chat:
        """Return a chat in which the assistant has already written the examples: prompt, concepts and relations."""
        written = texts.prompt_texts()
        first = written.instruction.format(task=written.sub_categories[sub_category].task)
        asked = [first, *[written.again] * len(examples)]
        answers = [self.format_prompt(example) for example in examples]
        return Chat(asked[-1], tuple(zip(asked, answers, strict=False)), "Prompt:")

    def perturb(self, kind: PerturbationKind, prompt: str, sub_category: SubCategory) -> Chat:
        """Return a chat in which the assistant has already changed other prompts; an answer first names its change."""
        written = texts.perturbation_texts()
        task = texts.prompt_texts().sub_categories[sub_category].task
        turns = [
            (f"Base: {edit.base}", self.format_perturbation(edit.change, edit.changed))
            for edit in written.examples_for(sub_category)[kind]
        ]
        return _chat(
            written.instruction.format(task=task, edit=written.edits[kind]), turns, f"Base: {prompt}", "Change:"
        )

    def densify(self, prompt: str, negative: str, sub_category: SubCategory) -> Chat:
        """Return a chat in which the assistant has already expanded other pairs of prompts."""
        written = texts.densification_texts()
        turns = [
            (f"Base: {pair.base}\nChanged: {pair.changed}", self.format_dense(pair.first, pair.second))
            for pair in written.examples_for(sub_category)
        ]
        return _chat(written.instruction, turns, f"Base: {prompt}\nChanged: {negative}", "First:")

    def decompose(self, prompt: str, sub_category: SubCategory | None = None) -> Chat:
        """Return a chat in which the assistant has already asked about other prompts; about scenes if none is given."""
        written = texts.question_texts()
        examples = written.examples_for(sub_category or SubCategory.COMPLEX)
        turns = [(f"Prompt: {one.prompt}", self.format_questions(one.questions)) for one in examples]
        return _chat(written.instruction, turns, f"Prompt: {prompt}", "-")


def _chat(task: str, turns: Sequence[tuple[str, str]], last: str, opening: str) -> Chat:
    """Return a chat whose first turn explains the task, before its example; what varies comes last.

    All requests of a task thus share their first words, whose keys and values vLLM computes once.
    """
    (asked, answer), *others = turns
    return Chat(last, ((f"{task}\n\n{asked}", answer), *others), opening)
