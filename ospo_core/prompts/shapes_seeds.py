"""Hand-written first examples of the shapes family, by sub-category; the model's own prompts soon take their place."""

from __future__ import annotations

from ospo_core.prompts.answers import PromptAnswer, Relation
from ospo_core.schema import SubCategory


def _plain(prompt: str, *concepts: str) -> PromptAnswer:
    """Return a prompt without relations."""
    return PromptAnswer(prompt, concepts)


def _related(subject: str, relation: str, other: str) -> PromptAnswer:
    """Return `a {subject} {relation} a {other}` with its one relation."""
    return PromptAnswer(f"a {subject} {relation} a {other}", (subject, other), ((subject, relation, other),))


def _complex(prompt: str, concepts: tuple[str, ...], *relations: Relation) -> PromptAnswer:
    """Return a prompt of several concepts and relations."""
    return PromptAnswer(prompt, concepts, relations)


SEEDS: dict[SubCategory, tuple[PromptAnswer, ...]] = {
    SubCategory.COLOR_1: (
        _plain("a red circle", "red circle"),
        _plain("a blue square", "blue square"),
        _plain("a yellow star", "yellow star"),
    ),
    SubCategory.SHAPE_1: (
        _plain("a square", "square"),
        _plain("a triangle", "triangle"),
        _plain("a heart at the top", "heart"),
    ),
    SubCategory.TEXTURE_1: (
        _plain("a dotted orange star", "dotted orange star"),
        _plain("a striped red circle", "striped red circle"),
        _plain("a striped green square", "striped green square"),
    ),
    SubCategory.COLOR_2: (
        _plain("a red circle and a yellow square", "red circle", "yellow square"),
        _plain("a green star and a red square", "green star", "red square"),
        _plain("a blue heart and a green circle", "blue heart", "green circle"),
    ),
    SubCategory.SHAPE_2: (
        _plain("a purple triangle and an orange star", "purple triangle", "orange star"),
        _plain("a green square and a yellow heart", "green square", "yellow heart"),
        _plain("a blue star and a red triangle", "blue star", "red triangle"),
    ),
    SubCategory.TEXTURE_2: (
        _plain("a striped red circle and a blue square", "striped red circle", "blue square"),
        _plain("a green star and a striped red heart", "green star", "striped red heart"),
        _plain("a striped blue square and a green circle", "striped blue square", "green circle"),
    ),
    SubCategory.SPATIAL_2D: (
        _related("red circle", "left of", "blue square"),
        _related("green star", "above", "red square"),
        _related("blue heart", "below", "green circle"),
    ),
    SubCategory.SPATIAL_3D: (
        _related("red circle", "in front of", "blue square"),
        _related("green star", "behind", "red square"),
        _related("blue heart", "in front of", "green circle"),
    ),
    SubCategory.NUMERACY_1: (
        _plain("three red circles", "red circle"),
        _plain("two blue squares", "blue square"),
        _plain("four green stars", "green star"),
    ),
    SubCategory.NUMERACY_2: (
        _plain("two red circles and three blue squares", "red circle", "blue square"),
        _plain("a green star and two red hearts", "green star", "red heart"),
        _plain("three blue stars and a green circle", "blue star", "green circle"),
    ),
    SubCategory.NON_SPATIAL: (
        _related("red circle", "inside", "blue box"),
        _related("red circle", "touching", "blue star"),
        _related("green star", "inside", "red box"),
    ),
    SubCategory.COMPLEX: (
        _complex(
            "a striped red circle above a blue square and a green heart",
            ("striped red circle", "blue square", "green heart"),
            ("striped red circle", "above", "blue square"),
        ),
        _complex(
            "a green star left of a striped blue circle and a red square",
            ("green star", "striped blue circle", "red square"),
            ("green star", "left of", "striped blue circle"),
        ),
        _complex(
            "a blue heart below a red star and a striped green square",
            ("blue heart", "red star", "striped green square"),
            ("blue heart", "below", "red star"),
        ),
        _complex(
            "a striped red square right of a green circle and a blue star",
            ("striped red square", "green circle", "blue star"),
            ("striped red square", "right of", "green circle"),
        ),
        _complex(
            "a green square above a striped blue heart and a red circle",
            ("green square", "striped blue heart", "red circle"),
            ("green square", "above", "striped blue heart"),
        ),
    ),
}
"""At least three prompts a sub-category, five for complex."""
