"""Synthetic prompts and tables of any size, the same for the same seed, with a known share that must be dropped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ospo_core.config.sections import EvaluationConfig
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.prompts.families import family
from ospo_core.prompts.shingles import shingles
from ospo_core.schema import TABLES, SubCategory

DUPLICATES, NEAR_DUPLICATES, CONTAMINATED = 0.10, 0.05, 0.02
"""Share of the prompts that repeat an earlier one, add a word to an earlier one, or are held out."""

SHORTEST, LONGEST = 5, 25
"""Number of words per prompt."""

_NEAR_FROM = 9
"""Number of shingles from which one more word leaves a similarity of 0.9 or more."""
_RELATIONS = ("left of", "right of", "above", "below", "behind", "in front of", "next to", "under", "on top of", "and")
_LAST = ("today", "outside", "indoors", "tonight", "nearby", "alone")
VARIANTS, QUESTIONS, TOKENS = 3, 3, 16
"""Perturbed prompts per prompt, questions per image, tokens per image."""


@dataclass
class Stream:
    """Prompts in order, and how many of them must be dropped for each reason.

    Attributes:
        prompts: the texts.
        planted: number by reason; the other texts differ, though some may be similar.
    """

    prompts: list[str] = field(default_factory=list)
    planted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("exact", "near", "contaminated"), 0))


def held_out() -> list[str]:
    """Return the held-out prompts of the embedded world."""
    every = EvaluationConfig().model_copy(update={"limit": 1 << 30})
    return [prompt.prompt for prompt in load_evaluation_prompts(every)]


def prompt_stream(count: int, seed: int = 0) -> Stream:
    """Return `count` prompts: sentences of 5 to 25 words from the project's seeds, a few with a number."""
    rng, known = random.Random(seed), held_out()
    grammar, stream, fresh = _Grammar(rng), Stream(), list[str]()
    seen: set[str] = set()
    while len(stream.prompts) < count:
        kind = rng.random()
        if kind < DUPLICATES and fresh:
            stream.prompts.append(rng.choice(fresh).capitalize() + ".")
            stream.planted["exact"] += 1
        elif kind < DUPLICATES + NEAR_DUPLICATES and fresh and len(shingles(text := rng.choice(fresh))) >= _NEAR_FROM:
            stream.prompts.append(f"{text} {rng.choice(_LAST)}")
            stream.planted["near"] += 1
        elif kind > 1 - CONTAMINATED:
            stream.prompts.append(rng.choice(known).upper())
            stream.planted["contaminated"] += 1
        elif (text := grammar.sentence()) not in seen:
            seen.add(text)
            fresh.append(text)
            stream.prompts.append(text)
    return stream


class _Grammar:
    """Writes sentences such as `a wooden boat behind two striped cats and a small kettle number 48`."""

    def __init__(self, rng: random.Random) -> None:
        examples = [answer for name in SubCategory for answer in family("janus_pro").seed_examples(name)]
        concepts = [concept.split() for answer in examples for concept in answer.concepts]
        self._rng = rng
        self._nouns = sorted({words[-1] for words in concepts})
        self._adjectives = sorted({words[0] for words in concepts if len(words) > 1})

    def sentence(self) -> str:
        """Return a sentence of 5 to 25 words."""
        length = self._rng.randint(SHORTEST, LONGEST)
        words = self._thing()
        while len(words) < length:
            words += [*self._rng.choice(_RELATIONS).split(), *self._thing()]
        return " ".join(words[:length])

    def _thing(self) -> list[str]:
        """Return a noun with its adjectives and sometimes a number."""
        draw = self._rng.random()
        adjectives = self._rng.sample(self._adjectives, 2 if draw < 0.3 else 1)
        number = ["number", str(self._rng.randint(1, 99_999))] if draw > 0.9 else []
        return ["a", *adjectives, self._rng.choice(self._nouns), *number]


@dataclass(frozen=True)
class SelectionTables:
    """The input of selection for one shard: tables of `ospo_core.schema.TABLES`."""

    perturbations: pa.Table
    images: pa.Table
    scores: pa.Table


def selection_shards(items: int, shard_size: int, seed: int = 0) -> Iterator[SelectionTables]:
    """Yield the tables of `items` prompts, shard by shard: three variants, six images, three questions per image."""
    for start in range(0, items, shard_size):
        names = [f"{number:016x}" for number in range(start, min(items, start + shard_size))]
        yield selection_tables(names, np.random.default_rng([seed, start]))


def selection_tables(names: list[str], rng: np.random.Generator) -> SelectionTables:
    """Return the tables of some prompts; about half of the answers are confident."""
    rows = len(names) * VARIANTS
    item = np.repeat(names, VARIANTS)
    variant = np.tile(np.arange(VARIANTS, dtype=np.int32), len(names))
    texts = {name: pa.array([name] * rows) for name in ("category", "sub_category", "kind", "prompt")}
    negative = {name: pa.array([f"not {key}" for key in item]) for name in ("negative_prompt", "dense_negative_prompt")}
    seeds = pa.array(rng.integers(1 << 63, size=rows, dtype=np.uint64))
    columns = {"item_id": pa.array(item), "variant": pa.array(variant), "seed": seeds, **texts, **negative}
    perturbations = _table("perturbations", columns | {"dense_prompt": texts["prompt"]})
    sides = pa.array(["base", "negative"] * rows)
    item, variant = np.repeat(item, 2), np.repeat(variant, 2)
    images = {
        "dense_prompt": pa.array([""] * len(item)),
        "seed": pa.array(np.repeat(seeds.to_numpy(), 2)),
        "tokens": _lists(pa.array(rng.integers(512, size=len(item) * TOKENS, dtype=np.uint16)), TOKENS),
        "image": pa.nulls(len(item), TABLES["images"].field("image").type),
        "mean_logprob": pa.array(rng.normal(-3, 1, len(item))),
    }
    place = {"item_id": pa.array(item), "variant": pa.array(variant), "side": sides}
    return SelectionTables(
        perturbations, _table("images", place | images), _table("scores", place | _scores(item, rng))
    )


def _scores(item: np.ndarray, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Return the columns of the scores table that hold numbers."""
    right = rng.random(len(item)) < 0.5
    yes = np.where(rng.random((len(item), QUESTIONS)) < np.where(right, 0.97, 0.5)[:, None], 0.95, 0.05)
    yes = yes + rng.uniform(-0.04, 0.04, yes.shape)
    about = rng.random((len(item), VARIANTS * QUESTIONS))
    variants = pa.array(np.tile(np.repeat(np.arange(VARIANTS, dtype=np.int32), QUESTIONS), len(item)))
    return {
        "answers": _lists(_answers(yes.ravel()), QUESTIONS),
        "negative_answers": _lists(_answers(about.ravel(), {"variant": variants}), VARIANTS * QUESTIONS),
        "score": pa.array((2 * yes - 1).mean(axis=1)),
        "logprob_base": pa.array(rng.normal(-3, 1, len(item))),
        "logprob_negatives": _lists(pa.array(rng.normal(-4, 1, len(item) * VARIANTS)), VARIANTS),
    }


def _answers(yes: np.ndarray, first: dict[str, pa.Array] | None = None) -> pa.StructArray:
    """Return answers as structs of a question and its two probabilities."""
    question = pa.array([f"is there object {number} ?" for number in range(QUESTIONS)] * (len(yes) // QUESTIONS))
    parts = {**(first or {}), "question": question, "p_yes": pa.array(yes), "p_no": pa.array(1 - yes)}
    return pa.StructArray.from_arrays(list(parts.values()), names=list(parts))


def _lists(values: pa.Array, length: int) -> pa.ListArray:
    """Return values as lists of equal length."""
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32)), values)


def _table(name: str, columns: dict[str, pa.Array]) -> pa.Table:
    """Return the table `name` from its columns, in the order of the schema."""
    schema = TABLES[name]
    return pa.Table.from_arrays([columns[key].cast(schema.field(key).type) for key in schema.names], schema=schema)
