"""The English texts for Janus-Pro: instructions, as templates for `str.format`, and the first few-shot examples.

Each instruction ends with the form of the answer, which `janus_pro` parses. All texts were written for this project; no
example comes from a benchmark (docs/method.md, trap 10).
"""

from __future__ import annotations

from ospo_core.prompts.families.base import PromptAnswer, seed_prompts
from ospo_core.schema import PerturbationKind, SubCategory

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.\n\n"
)
"""The system prompt that Janus was trained with for understanding and text (JanusProcessor of transformers)."""

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
List its concepts (objects with their attributes) and its relations, or none."""

WRITE_AGAIN = "Write one more, about other things, in the same three lines."

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
A picture of the changed prompt must be wrong for the first prompt."""

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

SEEDS: dict[SubCategory, list[PromptAnswer]] = seed_prompts(
    """
    color_1 | a turquoise watering can on a windowsill | turquoise watering can; windowsill
    color_1 | a maroon accordion in an empty hall | maroon accordion; empty hall
    color_1 | a lime green canoe at the lake shore | lime green canoe; lake shore
    shape_1 | a hexagonal lantern hanging in a doorway | hexagonal lantern; doorway
    shape_1 | an oval mirror on a brick wall | oval mirror; brick wall
    shape_1 | a cone-shaped flowerpot in the garden | cone-shaped flowerpot; garden
    texture_1 | a woven straw basket on the porch | woven straw basket; porch
    texture_1 | a velvet armchair in a library | velvet armchair; library
    texture_1 | a rusty metal gate in the fog | rusty metal gate; fog
    color_2 | a yellow kettle and a navy blue teacup | yellow kettle; navy blue teacup
    color_2 | a pink scooter and a black mailbox | pink scooter; black mailbox
    color_2 | a white goose and an orange rowing boat | white goose; orange rowing boat
    shape_2 | a round rug and a triangular bookshelf | round rug; triangular bookshelf
    shape_2 | a square cushion and a cylindrical lamp | square cushion; cylindrical lamp
    shape_2 | a heart-shaped locket and an oval tray | heart-shaped locket; oval tray
    texture_2 | a leather saddle and a wooden fence | leather saddle; wooden fence
    texture_2 | a glass pitcher and a knitted glove | glass pitcher; knitted glove
    texture_2 | a marble bench and a fluffy blanket | marble bench; fluffy blanket
    spatial_2d | a goose left of a pumpkin | goose; pumpkin | goose, left of, pumpkin
    spatial_2d | a kite above a lighthouse | kite; lighthouse | kite, above, lighthouse
    spatial_2d | a toolbox below a shelf | toolbox; shelf | toolbox, below, shelf
    spatial_3d | a cello in front of a curtain | cello; curtain | cello, in front of, curtain
    spatial_3d | a tractor behind a haystack | tractor; haystack | tractor, behind, haystack
    spatial_3d | a ladder hidden by an apple tree | ladder; apple tree | ladder, hidden by, apple tree
    numeracy_1 | three candles on a cake stand | three candles; cake stand
    numeracy_1 | two swans on a canal | two swans; canal
    numeracy_1 | four suitcases on a platform | four suitcases; platform
    numeracy_2 | two owls and three pine cones | two owls; three pine cones
    numeracy_2 | one violin and four music stands | one violin; four music stands
    numeracy_2 | three mugs and two croissants | three mugs; two croissants
    non_spatial | a baker dusts a loaf with flour | baker; loaf; flour | baker, dusts with flour, loaf
    non_spatial | a girl feeds a goat through a fence | girl; goat; fence | girl, feeds through a fence, goat
    non_spatial | a sailor ties a rope to a post | sailor; rope; post | sailor, ties to a post, rope
    complex | a striped cat asleep on a wicker chair beside a tall blue vase | \
        striped cat; wicker chair; tall blue vase | \
        striped cat, asleep on, wicker chair; wicker chair, beside, tall blue vase
    complex | two red lanterns above a wooden bridge that crosses a frozen stream | \
        two red lanterns; wooden bridge; frozen stream | \
        two red lanterns, above, wooden bridge; wooden bridge, crosses, frozen stream
    complex | a bearded gardener carrying a copper bucket past three green wheelbarrows | \
        bearded gardener; copper bucket; three green wheelbarrows | \
        bearded gardener, carrying, copper bucket; bearded gardener, past, three green wheelbarrows
    complex | a small white dog under a round glass table with a yellow book on it | \
        small white dog; round glass table; yellow book | \
        small white dog, under, round glass table; yellow book, on, round glass table
    complex | an old purple bus in front of a tiled station with four stone arches | \
        old purple bus; tiled station; four stone arches | \
        old purple bus, in front of, tiled station; tiled station, with, four stone arches
    """
)
"""Few-shot examples: at least three prompts per sub-category, five for complex."""
