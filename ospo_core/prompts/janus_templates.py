"""English instructions for Janus-Pro, in this project's own words; `str.format` fills the braces.

Each template ends by saying the form of the answer, which `janus_family` parses.
"""

from __future__ import annotations

from ospo_core.schema import PerturbationKind, SubCategory

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.\n\n"
)
"""The system prompt that Janus was trained with for understanding and text (transformers' JanusProcessor)."""

TASKS: dict[SubCategory, str] = {
    SubCategory.COLOR_1: "one object with one clearly named colour",
    SubCategory.SHAPE_1: "one object with one clearly named shape",
    SubCategory.TEXTURE_1: "one object with one clearly named material or texture",
    SubCategory.COLOR_2: "two different objects, each with its own clearly named colour",
    SubCategory.SHAPE_2: "two different objects, each with its own clearly named shape",
    SubCategory.TEXTURE_2: "two different objects, each with its own clearly named material or texture",
    SubCategory.SPATIAL_2D: "two objects, one left of, right of, above or below the other",
    SubCategory.SPATIAL_3D: "two objects, one in front of, behind or hidden by the other",
    SubCategory.NUMERACY_1: "an exact number, at most four, of one kind of object",
    SubCategory.NUMERACY_2: "exact numbers, each at most four, of two kinds of object",
    SubCategory.NON_SPATIAL: "a person or an animal that does something to or with something else",
    SubCategory.COMPLEX: "at least three objects with attributes and with relations between them",
}
"""What a prompt of a sub-category describes."""

WRITE = """Write one new prompt for a picture. It describes {task}.
Everything in it can be seen, and it differs from all the examples in its objects.
List its concepts (objects with their attributes) and its relations, or none. Follow the form of the examples.

{examples}

Now write one more, in the same three lines."""

EDITS: dict[PerturbationKind, str] = {
    PerturbationKind.REPLACE: "Replace exactly one object, attribute, number or relation by another of the same sort",
    PerturbationKind.SWAP: "Swap two details, such as the attributes, numbers or places of two objects",
    PerturbationKind.DROP: "Leave out exactly one object or attribute, with the words that belong to it only",
}
EDIT_EXAMPLES: dict[PerturbationKind, tuple[tuple[str, str], ...]] = {
    PerturbationKind.REPLACE: (
        ("a teal bicycle at a fountain", "a scarlet bicycle at a fountain"),
        ("an owl above a clock tower", "an owl below a clock tower"),
        ("a nurse folds a towel", "a nurse drops a towel"),
    ),
    PerturbationKind.SWAP: (
        ("a grey donkey and a golden bell", "a golden donkey and a grey bell"),
        ("a drum to the left of a crate", "a crate to the left of a drum"),
        ("two pears and three spoons", "three pears and two spoons"),
    ),
    PerturbationKind.DROP: (
        ("a grey donkey and a golden bell", "a grey donkey and a bell"),
        ("a drum to the left of a wooden crate", "a wooden crate"),
        ("a nurse folds a towel beside a stove", "a nurse folds a towel"),
    ),
}
"""What each kind of perturbation does, and three base prompts with their perturbed prompts."""

PERTURB = """Here is a prompt for a picture of {task}. {edit}. Keep every other word as it is.
A picture of the changed prompt must be wrong for the first prompt.

{examples}

Base: {prompt}
Write the line that comes next."""

DENSIFY = """Expand two short prompts into two long descriptions of pictures.
Both describe the same scene, light, background and camera, in the same words.
They differ only where the short prompts differ. State every detail of the short prompts. One paragraph each.

Base: an iron key on a piano
Changed: an iron spoon on a piano
First: A heavy iron key lies on the closed lid of a black piano in a quiet room, lit from the left by a tall window.
Second: A heavy iron spoon lies on the closed lid of a black piano in a quiet room, lit from the left by a tall window.

Base: {prompt}
Changed: {negative}
Write the two lines that come next."""

DECOMPOSE = """Split a prompt for a picture into yes/no questions. Together they check everything that it says.
Ask about each object, each attribute, each number and each relation once. Yes always means that the prompt is met.

Prompt: two silver bells to the right of a wooden drum
- Is there a bell?
- Are there exactly two bells?
- Are the bells silver?
- Is there a drum?
- Is the drum wooden?
- Are the bells to the right of the drum?

Prompt: {prompt}
Write its questions."""

VQA = "{question} Answer with yes or no."
