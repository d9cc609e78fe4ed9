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
    stop = ("<|User|>", "\n\n")
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
        """Return the hand-written prompts of `janus_pro_texts`."""
        return list(texts.SEEDS[sub_category])

    def write_prompt(self, sub_category: SubCategory, examples: Sequence[PromptAnswer]) -> Chat:
        """Return a chat in which the assistant has already written the examples: prompt, concepts and relations."""
        first = texts.WRITE.format(task=texts.TASKS[sub_category])
        asked = [first, *[texts.WRITE_AGAIN] * len(examples)]
        answers = [self.format_prompt(example) for example in examples]
        return Chat(asked[-1], tuple(zip(asked, answers, strict=False)), "Prompt:")

    def perturb(self, kind: PerturbationKind, prompt: str, sub_category: SubCategory) -> Chat:
        """Return a chat in which the assistant has already changed one detail of other prompts."""
        first = texts.PERTURB.format(task=texts.TASKS[sub_category], edit=texts.EDITS[kind])
        pairs = [(f"Base: {base}", self.format_perturbation(changed)) for base, changed in texts.EDIT_EXAMPLES[kind]]
        return _shown(first, pairs, f"Base: {prompt}", "Changed:")

    def densify(self, prompt: str, negative: str, sub_category: SubCategory) -> Chat:
        """Return the instruction to expand both prompts into one scene."""
        return Chat(texts.DENSIFY.format(prompt=prompt, negative=negative), opening="First:")

    def decompose(self, prompt: str, sub_category: SubCategory | None = None) -> Chat:
        """Return the instruction to write questions about everything in a prompt."""
        return Chat(texts.DECOMPOSE.format(prompt=prompt), opening="-")


def _shown(task: str, examples: Sequence[tuple[str, str]], last: str, opening: str) -> Chat:
    """Return a chat whose first turn explains the task, before the first example."""
    (asked, answer), *others = examples
    return Chat(last, ((f"{task}\n\n{asked}", answer), *others), opening)
