"""Hand-written first examples of the Janus-Pro family, by sub-category.

They were written for this project; none is taken from a benchmark (method, trap 10).
"""

from __future__ import annotations

from ospo_core.prompts.answers import PromptAnswer
from ospo_core.schema import SubCategory

SEEDS: dict[SubCategory, tuple[PromptAnswer, ...]] = {
    SubCategory.COLOR_1: (
        PromptAnswer("a turquoise watering can on a windowsill", ("turquoise watering can", "windowsill")),
        PromptAnswer("a maroon accordion in an empty hall", ("maroon accordion", "empty hall")),
        PromptAnswer("a lime green canoe at the lake shore", ("lime green canoe", "lake shore")),
    ),
    SubCategory.SHAPE_1: (
        PromptAnswer("a hexagonal lantern hanging in a doorway", ("hexagonal lantern", "doorway")),
        PromptAnswer("an oval mirror on a brick wall", ("oval mirror", "brick wall")),
        PromptAnswer("a cone-shaped flowerpot in the garden", ("cone-shaped flowerpot", "garden")),
    ),
    SubCategory.TEXTURE_1: (
        PromptAnswer("a woven straw basket on the porch", ("woven straw basket", "porch")),
        PromptAnswer("a velvet armchair in a library", ("velvet armchair", "library")),
        PromptAnswer("a rusty metal gate in the fog", ("rusty metal gate", "fog")),
    ),
    SubCategory.COLOR_2: (
        PromptAnswer("a yellow kettle and a navy blue teacup", ("yellow kettle", "navy blue teacup")),
        PromptAnswer("a pink scooter and a black mailbox", ("pink scooter", "black mailbox")),
        PromptAnswer("a white goose and an orange rowing boat", ("white goose", "orange rowing boat")),
    ),
    SubCategory.SHAPE_2: (
        PromptAnswer("a round rug and a triangular bookshelf", ("round rug", "triangular bookshelf")),
        PromptAnswer("a square cushion and a cylindrical lamp", ("square cushion", "cylindrical lamp")),
        PromptAnswer("a heart-shaped locket and an oval tray", ("heart-shaped locket", "oval tray")),
    ),
    SubCategory.TEXTURE_2: (
        PromptAnswer("a leather saddle and a wooden fence", ("leather saddle", "wooden fence")),
        PromptAnswer("a glass pitcher and a knitted glove", ("glass pitcher", "knitted glove")),
        PromptAnswer("a marble bench and a fluffy blanket", ("marble bench", "fluffy blanket")),
    ),
    SubCategory.SPATIAL_2D: (
        PromptAnswer("a goose left of a pumpkin", ("goose", "pumpkin"), (("goose", "left of", "pumpkin"),)),
        PromptAnswer("a kite above a lighthouse", ("kite", "lighthouse"), (("kite", "above", "lighthouse"),)),
        PromptAnswer("a toolbox below a shelf", ("toolbox", "shelf"), (("toolbox", "below", "shelf"),)),
    ),
    SubCategory.SPATIAL_3D: (
        PromptAnswer("a cello in front of a curtain", ("cello", "curtain"), (("cello", "in front of", "curtain"),)),
        PromptAnswer("a tractor behind a haystack", ("tractor", "haystack"), (("tractor", "behind", "haystack"),)),
        PromptAnswer(
            "a ladder hidden by an apple tree", ("ladder", "apple tree"), (("ladder", "hidden by", "apple tree"),)
        ),
    ),
    SubCategory.NUMERACY_1: (
        PromptAnswer("three candles on a cake stand", ("three candles", "cake stand")),
        PromptAnswer("two swans on a canal", ("two swans", "canal")),
        PromptAnswer("four suitcases on a platform", ("four suitcases", "platform")),
    ),
    SubCategory.NUMERACY_2: (
        PromptAnswer("two owls and three pine cones", ("two owls", "three pine cones")),
        PromptAnswer("one violin and four music stands", ("one violin", "four music stands")),
        PromptAnswer("three mugs and two croissants", ("three mugs", "two croissants")),
    ),
    SubCategory.NON_SPATIAL: (
        PromptAnswer(
            "a baker dusts a loaf with flour", ("baker", "loaf", "flour"), (("baker", "dusts with flour", "loaf"),)
        ),
        PromptAnswer(
            "a girl feeds a goat through a fence",
            ("girl", "goat", "fence"),
            (("girl", "feeds through a fence", "goat"),),
        ),
        PromptAnswer(
            "a sailor ties a rope to a post", ("sailor", "rope", "post"), (("sailor", "ties to a post", "rope"),)
        ),
    ),
    SubCategory.COMPLEX: (
        PromptAnswer(
            "a striped cat asleep on a wicker chair beside a tall blue vase",
            ("striped cat", "wicker chair", "tall blue vase"),
            (("striped cat", "asleep on", "wicker chair"), ("wicker chair", "beside", "tall blue vase")),
        ),
        PromptAnswer(
            "two red lanterns above a wooden bridge that crosses a frozen stream",
            ("two red lanterns", "wooden bridge", "frozen stream"),
            (("two red lanterns", "above", "wooden bridge"), ("wooden bridge", "crosses", "frozen stream")),
        ),
        PromptAnswer(
            "a bearded gardener carrying a copper bucket past three green wheelbarrows",
            ("bearded gardener", "copper bucket", "three green wheelbarrows"),
            (
                ("bearded gardener", "carrying", "copper bucket"),
                ("bearded gardener", "past", "three green wheelbarrows"),
            ),
        ),
        PromptAnswer(
            "a small white dog under a round glass table with a yellow book on it",
            ("small white dog", "round glass table", "yellow book"),
            (("small white dog", "under", "round glass table"), ("yellow book", "on", "round glass table")),
        ),
        PromptAnswer(
            "an old purple bus in front of a tiled station with four stone arches",
            ("old purple bus", "tiled station", "four stone arches"),
            (("old purple bus", "in front of", "tiled station"), ("tiled station", "with", "four stone arches")),
        ),
    ),
}
"""At least three prompts a sub-category, five for complex."""
