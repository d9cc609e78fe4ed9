"""The Janus-Pro family: its chat format and instructions."""

from __future__ import annotations

import pytest

from ospo_core.prompts.families import Chat, family
from ospo_core.schema import PerturbationKind, SubCategory

JANUS = family("janus_pro")


def test_chat_format_is_the_models_own() -> None:
    processing = pytest.importorskip("transformers.models.janus.processing_janus")
    system = processing.DEFAULT_SYSTEM_PROMPT
    assert JANUS.chat_text(Chat("Hello.")) == f"{system}<|User|>: Hello.\n\n<|Assistant|>:"
    assert JANUS.generation_text("a bell") == "<|User|>: a bell\n\n<|Assistant|>:<begin_of_image>"


def test_instructions_end_where_the_answer_begins_and_hold_no_open_brace() -> None:
    chats = [
        JANUS.write_prompt(SubCategory.COMPLEX, JANUS.seed_examples(SubCategory.COMPLEX)),
        *(JANUS.perturb(kind, "a bell", SubCategory.COLOR_2) for kind in PerturbationKind),
        JANUS.densify("a bell", "a drum", SubCategory.COLOR_2),
        JANUS.decompose("a bell"),
    ]
    assert not any("{" in JANUS.chat_text(chat) for chat in chats)
