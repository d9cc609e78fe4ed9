"""Text formats of Emu3: its chat format, and the instructions, examples and answers of Janus-Pro."""

from __future__ import annotations

from typing import ClassVar

from ospo_core.prompts.families import janus_pro_texts as texts
from ospo_core.prompts.families.base import IMAGE_MARKER, AnswerKind, Chat
from ospo_core.prompts.families.janus_pro import JanusProFamily

SYSTEM = "You are a helpful assistant."
"""The system prompt that Emu3 was trained with (`Emu3Processor` of github.com/baaivision/Emu3)."""


class Emu3Family(JanusProFamily):
    """Emu3-Gen and Emu3-Chat (Emu3-community's checkpoints in transformers' format).

    The instructions are Janus-Pro's, so they were written for another model; a change of them raises both versions.
    """

    name = "emu3"
    negative_prompt: ClassVar[str] = (
        "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst "
        "quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
    )
    """As in `image_generation.py` of github.com/baaivision/Emu3 and in transformers' documentation."""

    def chat_text(self, chat: Chat) -> str:
        """Return the system prompt, the turns and the opening, as the chat template of Emu3-Chat writes them."""
        turns = "".join(f" USER: {asked} ASSISTANT: {answer}" for asked, answer in chat.examples)
        opening = f" {chat.opening}" if chat.opening else ""
        return f"{SYSTEM}{turns} USER: {chat.instruction} ASSISTANT:{opening}"

    def stop(self, kind: AnswerKind) -> tuple[str, ...]:
        """Return the user's next turn, before which the template has no token that ends an answer, and Janus-Pro's."""
        return (" USER:", *super().stop(kind))

    def vqa_text(self, question: str) -> str:
        """Return the chat text of a picture and a question."""
        return self.chat_text(Chat(f"<|image start|>{IMAGE_MARKER}<|image end|>{texts.VQA.format(question=question)}"))

    def generation_text(self, prompt: str) -> str:
        """Return the prompt itself, which is no turn of a chat, and the begin-of-image tag."""
        return f"{prompt}<|image start|>"
