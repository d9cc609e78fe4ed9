"""Texts of Emu3: its chat template, and Janus-Pro's instructions in it."""

from __future__ import annotations

import pytest
from jinja2 import Template

from ospo_core.prompts.families import IMAGE_MARKER, AnswerKind, Chat, family

TEMPLATE = (
    "{% for message in messages %}{% if message.role != 'system' %}{{ message.role.upper() + ': ' }}{% endif %}"
    "{% if message.picture %}{{ '<image>' }}{% endif %}{{ message.text + ' ' }}{% endfor %}{{ 'ASSISTANT:' }}"
)
"""What the chat template of Emu3-Chat in transformers' format says, for messages of one text and a picture or none."""


def rendered(*turns: tuple[str, str], picture: bool = False) -> str:
    """Render the template for turns after the system prompt; the picture stands before the last one."""
    messages = [{"role": role, "text": text} for role, text in (("system", "You are a helpful assistant."), *turns)]
    return Template(TEMPLATE).render(messages=[*messages[:-1], messages[-1] | {"picture": picture}])


def test_chats_are_those_of_the_template() -> None:
    chat = Chat("three", (("one", "two"),), "Prompt:")
    expected = rendered(("user", "one"), ("assistant", "two"), ("user", "three"))
    assert family("emu3").chat_text(chat) == f"{expected} Prompt:"
    assert family("emu3").chat_text(Chat("one")) == rendered(("user", "one"))


def test_questions_are_those_of_the_template() -> None:
    expected = rendered(("user", "Is it red? Answer with yes or no."), picture=True)
    picture = f"<|image start|>{IMAGE_MARKER}<|image end|>"
    assert family("emu3").vqa_text("Is it red?") == expected.replace("<image>", picture)


@pytest.mark.parametrize("kind", AnswerKind)
def test_an_answer_ends_at_the_user_s_next_turn(kind: AnswerKind) -> None:
    assert family("emu3").stop(kind)[0] == " USER:"
    assert set(family("janus_pro").stop(kind)) < set(family("emu3").stop(kind))


def test_a_change_of_the_shared_texts_counts_for_both() -> None:
    assert family("emu3").version == family("janus_pro").version
