"""The language of the shapes world: sentences as data, as text, and parsed from text.

A sentence is a sequence of noun phrases; neighbours are joined by a relation or by `and`:
`a striped red circle left of a blue square and two green hearts`. A dense sentence also names the cell of every thing,
with a letter for the column and a digit for the row: `a red circle at b2 left of a blue square at d3`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ospo_core.shapes.world import COLORS, CONTAINERS, SHAPES, TEXTURES, Thing

RELATIONS_2D = ("left of", "right of", "above", "below")
RELATIONS_3D = ("in front of", "behind")
RELATIONS_CONTACT = ("inside", "touching")
RELATIONS = RELATIONS_2D + RELATIONS_3D + RELATIONS_CONTACT
SIDES = ("on the left", "on the right", "at the top", "at the bottom")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
MAX_THINGS = 6
MAX_COUNT = 4
MOST_WORDS = 1000
"""Words of a text that is parsed; a dense sentence of the world has fewer than 100."""
_PLURALS = {f"{shape}s": shape for shape in SHAPES}
_OPPOSITE = {"right of": "left of", "below": "above", "behind": "in front of"}

Cell = tuple[int, int]
"""(row, column) of a cell."""


class GrammarError(ValueError):
    """A text that is not a sentence of the shapes world; the message names the offending word."""


@dataclass(frozen=True)
class Noun:
    """A noun phrase: `count` things of one shape, of a colour and texture if named."""

    shape: str
    color: str | None = None
    texture: str | None = None
    count: int = 1

    @property
    def words(self) -> str:
        """The phrase without article or number, in the singular: `striped red circle`."""
        return " ".join(word for word in (self.texture, self.color, self.shape) if word)

    @property
    def text(self) -> str:
        """The phrase with its article or number: `an orange star`, `two red circles`."""
        if self.count > 1:
            return f"{NUMBERS[self.count]} {self.words}s"
        return f"{'an' if self.words[0] in 'aeiou' else 'a'} {self.words}"

    def matches(self, thing: Thing) -> bool:
        """Whether a thing fits the description; attributes that are not named may have any value."""
        return thing.shape == self.shape and self.color in (None, thing.color) and self.texture in (None, thing.texture)

    def overlaps(self, other: Noun) -> bool:
        """Whether one thing could fit both descriptions."""
        return (
            self.shape == other.shape
            and (self.color is None or other.color is None or self.color == other.color)
            and (self.texture is None or other.texture is None or self.texture == other.texture)
        )


@dataclass(frozen=True)
class Sentence:
    """A prompt: nouns, relations `(i, relation, i + 1)` between neighbours, and a side if there is one noun."""

    nouns: tuple[Noun, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    side: str | None = None

    @property
    def total(self) -> int:
        """Number of things that the sentence describes."""
        return sum(noun.count for noun in self.nouns)

    def text(self, cells: tuple[tuple[Cell, ...], ...] | None = None) -> str:
        """Return the sentence in words; with `cells` (those of each noun's things) the dense sentence."""
        joined = {i: relation for i, relation, _ in self.relations}
        words: list[str] = []
        for i, noun in enumerate(self.nouns):
            words.append(noun.text)
            if cells is not None:
                words.append("at " + " ".join(cell_name(cell) for cell in cells[i]))
            if i + 1 < len(self.nouns):
                words.append(joined.get(i, "and"))
        if self.side:
            words.append(self.side)
        return " ".join(words)

    def meaning(self) -> tuple[object, ...]:
        """Return the meaning of the sentence, which is the same for all ways to express it."""
        related = set()
        for i, relation, j in self.relations:
            first, second = self.nouns[i], self.nouns[j]
            if relation in _OPPOSITE:
                related.add((second, _OPPOSITE[relation], first))
            elif relation == "touching" and second.text < first.text:
                related.add((second, relation, first))
            else:
                related.add((first, relation, second))
        return (frozenset(Counter(self.nouns).items()), frozenset(related), self.side)


def cell_name(cell: Cell) -> str:
    """Return a cell's name: column letter, row digit from the top."""
    return f"{'abcd'[cell[1]]}{cell[0] + 1}"


def is_drawable(sentence: Sentence) -> bool:
    """Whether the world has pictures of this sentence and each thing matches only one noun."""
    nouns = sentence.nouns
    if not 1 <= len(nouns) <= 4 or sentence.total > MAX_THINGS or (sentence.side and len(nouns) > 1):
        return False
    if any(a.overlaps(b) for k, a in enumerate(nouns) for b in nouns[k + 1 :]):
        return False
    contained = {j for _, relation, j in sentence.relations if relation == "inside"}
    containers = {k for k, noun in enumerate(nouns) if noun.shape in CONTAINERS}
    if containers != contained or len(containers) > 1 or any(nouns[k].texture for k in containers):
        return False
    if containers and sentence.total > 4:
        return False
    if any(not 1 <= noun.count <= MAX_COUNT for noun in nouns) or (sentence.side and nouns[0].count > 1):
        return False
    seen: set[int] = set()
    for i, relation, j in sentence.relations:
        if j != i + 1 or {i, j} & seen or nouns[i].count > 1 or nouns[j].count > 1:
            return False
        if relation in (*RELATIONS_3D, "touching") and (nouns[i].texture or nouns[j].texture):
            return False
        seen |= {i, j}
    return True


def parse(text: str) -> Sentence:
    """Parse a sentence, short or dense (cells are ignored).

    Raises:
        GrammarError: the text is not a sentence of this world.
    """
    return parse_dense(text)[0]


def parse_dense(text: str) -> tuple[Sentence, tuple[tuple[Cell, ...], ...]]:
    """Parse a sentence and the cells of each noun's things (empty where none are named).

    Raises:
        GrammarError: the text is not a sentence of this world.
    """
    words = text.split()
    if len(words) > MOST_WORDS:
        raise GrammarError(f"{len(words)} words")
    reader = PhraseReader(words)
    nouns, cells = [reader.noun()], [reader.cells()]
    relations: list[tuple[int, str, int]] = []
    side = reader.one_of(SIDES)
    while reader.left and side is None:
        relation = reader.one_of(RELATIONS)
        if relation is not None:
            relations.append((len(nouns) - 1, relation, len(nouns)))
        elif reader.one_of(("and",)) is None:
            break
        nouns.append(reader.noun())
        cells.append(reader.cells())
    if reader.left:
        raise GrammarError(f"unexpected word {reader.left[0]!r}")
    return Sentence(tuple(nouns), tuple(relations), side), tuple(cells)


class PhraseReader:
    """Parses phrases from the front of a list of words."""

    def __init__(self, words: list[str]) -> None:
        self.left = words

    def one_of(self, phrases: tuple[str, ...]) -> str | None:
        """Consume the first of `phrases` that comes next, if any."""
        for phrase in phrases:
            words = phrase.split()
            if self.left[: len(words)] == words:
                self.left = self.left[len(words) :]
                return phrase
        return None

    def noun(self) -> Noun:
        """Consume a noun phrase with its article or number."""
        number = self.one_of(("a", "an", *NUMBERS[2 : MAX_COUNT + 1]))
        if number is None:
            raise GrammarError(f"expected an article or a number at {' '.join(self.left[:2])!r}")
        noun = self.description(plural=number in NUMBERS)
        noun = replace(noun, count=NUMBERS.index(number) if number in NUMBERS else 1)
        if number == "an" and not noun.text.startswith("an "):
            raise GrammarError(f"wrong article before {noun.words!r}")
        return noun

    def description(self, plural: bool = False) -> Noun:
        """Consume texture, colour and shape."""
        texture, color = self.one_of(TEXTURES), self.one_of(COLORS)
        shape = self.one_of(tuple(_PLURALS) if plural else (*SHAPES, *CONTAINERS))
        if shape is None:
            raise GrammarError(f"expected a shape at {' '.join(self.left[:2])!r}")
        return Noun(_PLURALS.get(shape, shape), color, texture)

    def cells(self) -> tuple[Cell, ...]:
        """Consume `at` and the names of cells, if they come next."""
        found: list[Cell] = []
        if self.one_of(("at",)) is None:
            return ()
        if self.left[:1] == ["the"]:
            self.left = ["at", *self.left]
            return ()
        while self.left and len(self.left[0]) == 2 and self.left[0][0] in "abcd" and self.left[0][1] in "1234":
            name, self.left = self.left[0], self.left[1:]
            found.append((int(name[1]) - 1, "abcd".index(name[0])))
        if not found:
            raise GrammarError("expected the name of a cell after 'at'")
        return tuple(found)
