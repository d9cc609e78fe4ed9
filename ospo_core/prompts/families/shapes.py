"""Text formats of the embedded shapes model: lower-case words and marks, separated by single spaces.

The model is pretrained on exactly the texts that this module formats: any change here requires a new pretraining.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ospo_core.prompts.families.base import (
    IMAGE_MARKER,
    Chat,
    ParseError,
    PromptAnswer,
    PromptFamily,
    Relation,
    check_text,
    seed_prompts,
)
from ospo_core.prompts.filters import UNPARSABLE
from ospo_core.schema import PerturbationKind, SubCategory

NO_RELATION = "none"
PHRASES: dict[SubCategory, str] = {
    SubCategory.COLOR_1: "color one",
    SubCategory.SHAPE_1: "shape one",
    SubCategory.TEXTURE_1: "texture one",
    SubCategory.COLOR_2: "color two",
    SubCategory.SHAPE_2: "shape two",
    SubCategory.TEXTURE_2: "texture two",
    SubCategory.SPATIAL_2D: "flat layout",
    SubCategory.SPATIAL_3D: "deep layout",
    SubCategory.NUMERACY_1: "numeracy one",
    SubCategory.NUMERACY_2: "numeracy two",
    SubCategory.NON_SPATIAL: "contact",
    SubCategory.COMPLEX: "complex",
}
"""How an instruction names a sub-category."""

_MARK = re.compile(r"[|;,?:.]")
_NOT_IN_PROMPT = set("|;?:.")


def _tidy(answer: str) -> str:
    """Put single spaces between words and marks; raises ParseError if the answer is no text."""
    check_text(answer)
    return " ".join(_MARK.sub(r" \g<0> ", answer).split())


def _sentence(text: str, answer: str) -> str:
    """Return `text` if it can be a prompt; raises ParseError if it is empty or contains a mark of the answer format."""
    text = text.strip()
    if not text or _NOT_IN_PROMPT & set(text.split()):
        raise ParseError(UNPARSABLE, answer, "a prompt is empty or contains a mark of the answer format")
    return text


def _fields(text: str, separator: str, answer: str) -> tuple[str, ...]:
    """Split at a mark; raises ParseError if a part is empty."""
    parts = tuple(part.strip() for part in text.split(separator))
    if not all(parts):
        raise ParseError(UNPARSABLE, answer, f"a part between {separator!r} marks is empty")
    return parts


def _relations(text: str, answer: str) -> tuple[Relation, ...]:
    """Parse `subject , relation , object ; ...` or `none`."""
    if text.strip() == NO_RELATION:
        return ()
    relations = [_fields(part, ",", answer) for part in _fields(text, ";", answer)]
    if any(len(words) != 3 for words in relations):
        raise ParseError(UNPARSABLE, answer, "a relation needs subject, relation and object")
    return tuple((subject, relation, other) for subject, relation, other in relations)


class ShapesFamily(PromptFamily):
    """The embedded tiny Janus; its tokenizer has one token per word."""

    name = "shapes"
    yes = ("yes",)
    no = ("no",)

    def chat_text(self, chat: Chat) -> str:
        """Return `<|User|> : {instruction} <|Assistant|> :`, after earlier turns of the same form."""
        turns = (*chat.examples, (chat.instruction, chat.opening))
        return " ".join(f"<|User|> : {asked} <|Assistant|> : {answer}".rstrip() for asked, answer in turns)

    def vqa_text(self, question: str) -> str:
        """Return the chat text of a picture followed by a question."""
        return self.chat_text(Chat(f"<begin_of_image>{IMAGE_MARKER}<end_of_image> {question}"))

    def generation_text(self, prompt: str) -> str:
        """Return the chat text of a prompt, followed by the begin-of-image tag."""
        return f"{self.chat_text(Chat(prompt))} <begin_of_image>"

    def seed_examples(self, sub_category: SubCategory) -> list[PromptAnswer]:
        """Return hand-written prompts."""
        return list(SEEDS[sub_category])

    def write_prompt(self, sub_category: SubCategory, examples: Sequence[PromptAnswer]) -> Chat:
        """Return `write a prompt about {phrase} . examples : {p1} ; {p2} ; {p3} .`, prompts only."""
        shown = " ; ".join(example.prompt for example in examples)
        return Chat(f"write a prompt about {PHRASES[sub_category]} . examples : {shown} .")

    def perturb(self, kind: PerturbationKind, prompt: str, sub_category: SubCategory) -> Chat:
        """Return `{kind} one detail of : {prompt} .`; the sub-category is not named."""
        return Chat(f"{kind.value} one detail of : {prompt} .")

    def densify(self, prompt: str, negative: str, sub_category: SubCategory) -> Chat:
        """Return `place both : {prompt} | {negative} .`; the sub-category is not named."""
        return Chat(f"place both : {prompt} | {negative} .")

    def decompose(self, prompt: str, sub_category: SubCategory | None = None) -> Chat:
        """Return `ask about : {prompt} .`; the sub-category is not named."""
        return Chat(f"ask about : {prompt} .")

    def format_prompt(self, answer: PromptAnswer) -> str:
        """Return `{prompt} | {concept} , {concept} | {subject} , {relation} , {object} ; ...`."""
        relations = " ; ".join(" , ".join(relation) for relation in answer.relations)
        return f"{answer.prompt} | {' , '.join(answer.concepts)} | {relations or NO_RELATION}"

    def format_dense(self, dense: str, dense_negative: str) -> str:
        """Return `{dense} | {dense_negative}`."""
        return f"{dense} | {dense_negative}"

    def format_questions(self, questions: Sequence[str]) -> str:
        """Return the questions one after another; each ends with its own ` ?`."""
        return " ".join(questions)

    def parse_prompt(self, answer: str) -> PromptAnswer:
        """Parse what `format_prompt` writes; raises ParseError."""
        parts = _tidy(answer).split("|")
        if len(parts) != 3:
            raise ParseError(UNPARSABLE, answer, "a prompt needs three parts: prompt, concepts, relations")
        prompt = _sentence(parts[0], answer)
        return PromptAnswer(prompt, _fields(parts[1], ",", answer), _relations(parts[2], answer))

    def parse_perturbation(self, answer: str) -> str:
        """Parse one prompt; raises ParseError."""
        return _sentence(_tidy(answer), answer)

    def parse_dense(self, answer: str) -> tuple[str, str]:
        """Parse what `format_dense` writes; raises ParseError."""
        parts = _tidy(answer).split("|")
        if len(parts) != 2:
            raise ParseError(UNPARSABLE, answer, "expected two dense prompts")
        return _sentence(parts[0], answer), _sentence(parts[1], answer)

    def parse_questions(self, answer: str) -> list[str]:
        """Parse questions that end with ` ?`, each once; raises ParseError if there are none or one is unfinished."""
        *bodies, rest = _tidy(answer).split("?")
        if not bodies or rest.strip():
            raise ParseError(UNPARSABLE, answer, "no questions, or one without a question mark")
        return list(dict.fromkeys(f"{_sentence(body, answer)} ?" for body in bodies))


SEEDS: dict[SubCategory, list[PromptAnswer]] = seed_prompts(
    """
    color_1 | a red circle | red circle
    color_1 | a blue square | blue square
    color_1 | a yellow star | yellow star
    shape_1 | a square | square
    shape_1 | a triangle | triangle
    shape_1 | a heart at the top | heart
    texture_1 | a dotted orange star | dotted orange star
    texture_1 | a striped red circle | striped red circle
    texture_1 | a striped green square | striped green square
    color_2 | a red circle and a yellow square | red circle; yellow square
    color_2 | a green star and a red square | green star; red square
    color_2 | a blue heart and a green circle | blue heart; green circle
    shape_2 | a purple triangle and an orange star | purple triangle; orange star
    shape_2 | a green square and a yellow heart | green square; yellow heart
    shape_2 | a blue star and a red triangle | blue star; red triangle
    texture_2 | a striped red circle and a blue square | striped red circle; blue square
    texture_2 | a green star and a striped red heart | green star; striped red heart
    texture_2 | a striped blue square and a green circle | striped blue square; green circle
    spatial_2d | a red circle left of a blue square | red circle; blue square | red circle, left of, blue square
    spatial_2d | a green star above a red square | green star; red square | green star, above, red square
    spatial_2d | a blue heart below a green circle | blue heart; green circle | blue heart, below, green circle
    spatial_3d | a red circle in front of a blue square | red circle; blue square | red circle, in front of, blue square
    spatial_3d | a green star behind a red square | green star; red square | green star, behind, red square
    spatial_3d | a blue heart in front of a green circle | blue heart; green circle | \
        blue heart, in front of, green circle
    numeracy_1 | three red circles | red circle
    numeracy_1 | two blue squares | blue square
    numeracy_1 | four green stars | green star
    numeracy_2 | two red circles and three blue squares | red circle; blue square
    numeracy_2 | a green star and two red hearts | green star; red heart
    numeracy_2 | three blue stars and a green circle | blue star; green circle
    non_spatial | a red circle inside a blue box | red circle; blue box | red circle, inside, blue box
    non_spatial | a red circle touching a blue star | red circle; blue star | red circle, touching, blue star
    non_spatial | a green star inside a red box | green star; red box | green star, inside, red box
    complex | a striped red circle above a blue square and a green heart | \
        striped red circle; blue square; green heart | striped red circle, above, blue square
    complex | a green star left of a striped blue circle and a red square | \
        green star; striped blue circle; red square | green star, left of, striped blue circle
    complex | a blue heart below a red star and a striped green square | blue heart; red star; striped green square | \
        blue heart, below, red star
    complex | a striped red square right of a green circle and a blue star | \
        striped red square; green circle; blue star | striped red square, right of, green circle
    complex | a green square above a striped blue heart and a red circle | \
        green square; striped blue heart; red circle | green square, above, striped blue heart
    """
)
"""The first few-shot examples: at least three prompts per sub-category, five for complex."""
