"""A text model made of rules: it answers the instructions of Janus-Pro, in its chat format or Emu3's, by the seed."""

from __future__ import annotations

import random

from ospo_core.engines.base import Request
from ospo_core.prompts.families import PromptAnswer, family

COLORS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")
THINGS = ("bench", "kettle", "bicycle", "umbrella", "guitar", "suitcase", "lamp", "ladder", "violin", "basket")
_FAMILY = family("janus_pro")


def answer(request: Request) -> str:
    """Continue the opening of the answer that a chat text ends with."""
    user, assistant = ("<|User|>: ", "<|Assistant|>:") if "<|User|>" in request.prompt else ("USER: ", "ASSISTANT:")
    chat, _, opening = request.prompt.rpartition(assistant)
    instruction = chat.rpartition(user)[2].strip()
    subject = instruction.partition("\n")[0].partition(": ")[2]
    draw = random.Random(request.seed)
    if opening == " Prompt:":
        concept = f"{draw.choice(COLORS)} {draw.choice(THINGS)}"
        whole = _FAMILY.format_prompt(PromptAnswer(f"a {concept}", (concept,)))
    elif opening == " Change:":
        before, thing = subject.split()[1:]
        after = draw.choice([color for color in COLORS if color != before])
        whole = f"Change: {before} becomes {after}\nChanged: a {after} {thing}"
    elif opening == " First:":
        changed = instruction.partition("Changed: ")[2]
        whole = _FAMILY.format_dense(*(f"{prompt} in a quiet street at noon" for prompt in (subject, changed)))
    else:
        color, thing = subject.split()[1:3]
        whole = _FAMILY.format_questions([f"Is there a {thing}?", f"Is the {thing} {color}?"])
    return whole.removeprefix(opening.strip())
