"""Tables of perturbations, images and scores in, the table of pairs out, column by column."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import TABLES, Side
from ospo_core.selection.columns import NONE, Ints, read_scores, side_by_side, sides_of, variants_of
from ospo_core.selection.rules import Candidates, Choice, choose

_NO_VARIANT = np.iinfo(np.int64).min
_TEXTS = ("item_id", "category", "sub_category", "prompt", "negative_prompt")
_OFFSET = 1 << 31


@dataclass(frozen=True)
class PairTables:
    """Outcome of the pair rules on many prompts.

    Args:
        table: one row a pair, `TABLES["pairs"]`; masks are empty until they are computed.
        drops: reason (a key of `DROP_REASONS`) to number of prompts.
        items: prompts seen; always the rows of `table` plus the sum of `drops`.
    """

    table: pa.Table
    drops: Counter[str]
    items: int


def build_pairs(perturbations: pa.Table, images: pa.Table, scores: pa.Table, config: SelectionConfig) -> PairTables:
    """Choose the pair of every prompt that has perturbations, or count why there is none.

    The three tables must list their prompts in the same order, each prompt's rows together; prompts may be missing
    from `images` and `scores`. That is the order in which the stages write them. Only images that were both rendered
    and scored take part.

    Raises:
        StageError: rows are out of order or do not fit each other.
    """
    prompt, of_image, of_score = _item_numbers(perturbations, images, scores)
    items = int(prompt.max(initial=-1)) + 1
    perturbed = side_by_side(prompt, np.lexsort((variants_of(perturbations), prompt)), items)
    image = _image_of_score(images, of_image, scores, of_score)
    candidates = _candidates(perturbations, perturbed, scores, of_score, image, config)
    choice = choose(candidates, config)
    paired = np.flatnonzero(choice.reason == "")
    drops = Counter(str(reason) for reason in choice.reason if reason)
    rule = config.rule if config.filtering else "unfiltered"
    columns = {
        **_texts(perturbations.take(pa.array(perturbed[paired, choice.negative[paired]]))),
        **_sides(candidates, choice, paired, image, images, scores),
        "rule": pa.array([rule] * len(paired), pa.string()),
    }
    schema = TABLES["pairs"]
    arrays = [columns[field.name].cast(field.type) for field in schema]
    return PairTables(pa.Table.from_arrays(arrays, schema=schema), drops, items)


def _item_numbers(perturbations: pa.Table, images: pa.Table, scores: pa.Table) -> tuple[Ints, Ints, Ints]:
    """Number the prompts by their runs of rows in `perturbations`; return the number of every row of each table.

    Raises:
        StageError: the tables do not list their prompts in the same order.
    """
    tables = {"perturbations": perturbations, "images": images, "scores": scores}
    chunks = [chunk for table in tables.values() for chunk in table["item_id"].chunks]
    names = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    codes = np.asarray(names.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    parts = np.split(codes, np.cumsum([table.num_rows for table in tables.values()])[:-1])
    runs = dict(zip(tables, map(_runs, parts), strict=True))
    known, first = runs["perturbations"]
    numbers = [first]
    for name in ("images", "scores"):
        there, run = runs[name]
        place = _in_step(known, there)
        if len(place) < len(there):
            raise StageError(
                "rows belong to a prompt without perturbations, or out of order",
                field=f"table {name}, item_id",
                value=names.dictionary[int(there[len(place)])].as_py(),
                remedy="Give all tables in the order of the perturbations table",
            )
        numbers.append(place[run])
    return numbers[0], numbers[1], numbers[2]


def _runs(codes: Ints) -> tuple[Ints, Ints]:
    """Return the code of each run of equal codes, and the number of the run that each row belongs to."""
    begins = np.concatenate((np.ones(min(1, len(codes)), dtype=np.bool_), codes[1:] != codes[:-1]))
    return codes[begins], np.cumsum(begins) - 1


def _in_step(known: Ints, there: Ints) -> Ints:
    """Return where each run of another table is among the known ones, as far as they come in the same order."""
    places: list[int] = []
    for place, code in enumerate(known.tolist()):
        if len(places) < len(there) and there[len(places)] == code:
            places.append(place)
    return np.asarray(places, dtype=np.int64)


def _image_of_score(images: pa.Table, of_image: Ints, scores: pa.Table, of_score: Ints) -> Ints:
    """Return for every row of scores the row of its image; of two equal images it is the last, without one NONE."""
    have, want = _image_keys(images, of_image), _image_keys(scores, of_score)
    order = np.argsort(have, kind="stable")
    found = np.searchsorted(have[order], want, side="right") - 1
    rows = np.append(order, NONE)[found]
    return np.where(np.append(have, NONE)[rows] == want, rows, NONE)


def _image_keys(table: pa.Table, item: Ints) -> Ints:
    """Return one number for item, variant and side together."""
    return item << 33 | (variants_of(table) + _OFFSET) << 1 | sides_of(table)


def _candidates(
    perturbations: pa.Table, perturbed: Ints, scores: pa.Table, item: Ints, image: Ints, config: SelectionConfig
) -> Candidates:
    """Put the images of each prompt side by side, those that were both rendered and scored."""
    read = read_scores(scores)
    order = np.lexsort((read.negative, read.variant, item))
    rows = side_by_side(item, order[image[order] != NONE], len(perturbed))
    variants = np.append(variants_of(perturbations), _NO_VARIANT)[perturbed]
    draws = np.zeros(len(perturbed), dtype=np.uint64)
    if not config.filtering:
        names = perturbations["item_id"].take(pa.array(perturbed[:, 0])).to_pylist()
        draws = np.asarray([derive_seed("unfiltered pair", name) for name in names], dtype=np.uint64)
    candidates = Candidates(read, item, rows, variants, (perturbed != NONE).sum(axis=1), draws)
    _check(candidates)
    return candidates


def _check(candidates: Candidates) -> None:
    """Refuse images that cannot belong to their prompt.

    Raises:
        StageError: a variant without perturbed prompt, a wrong number of log-probabilities, or an image given twice.
    """
    scores, rows = candidates.scores, candidates.rows[candidates.here]
    item = candidates.item[rows]
    wrong = scores.logprob_negatives.lengths[rows] != candidates.perturbed[item]
    wrong |= ~(candidates.variants[item] == scores.variant[rows][:, None]).any(axis=1)
    place = np.stack([item, scores.variant[rows], scores.negative[rows]])
    wrong[1:] |= (place[:, 1:] == place[:, :-1]).all(axis=0)
    if wrong.any():
        row = rows[wrong.argmax()]
        raise StageError(
            "scores do not fit the perturbed prompts of their item",
            field="scores",
            value=(int(scores.variant[row]), _names(scores.negative[[row]])[0]),
            remedy="Run the scores stage again with --refresh scores",
        )


def _texts(negatives: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return the columns of pairs that come from the perturbations used as their text negatives."""
    return {**{name: negatives[name] for name in _TEXTS}, "negative_kind": negatives["kind"]}


def _sides(
    candidates: Candidates, choice: Choice, paired: Ints, image: Ints, images: pa.Table, scores: pa.Table
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Return the columns of pairs that describe their two images."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "image_logprob_gap": pa.array(choice.image_gap[paired]),
        "text_logprob_gap": pa.array(choice.text_gap[paired]),
    }
    for side, places in (("chosen", choice.chosen), ("rejected", choice.rejected)):
        rows = candidates.rows[paired, places[paired]]
        pictures = images.select(["tokens", "image"]).take(pa.array(image[rows]))
        columns |= {
            f"{side}_variant": pa.array(candidates.scores.variant[rows]),
            f"{side}_side": pa.array(_names(candidates.scores.negative[rows]), pa.string()),
            f"{side}_tokens": pictures["tokens"],
            f"{side}_image": pictures["image"],
            f"{side}_answers": scores["answers"].take(pa.array(rows)),
            f"{side}_score": pa.array(candidates.scores.score[rows]),
            f"{side}_mask": pa.nulls(len(rows), TABLES["pairs"].field(f"{side}_mask").type),
        }
    return columns


def _names(negative: NDArray[np.bool_]) -> list[str]:
    """Return the names of sides."""
    return np.where(negative, Side.NEGATIVE.value, Side.BASE.value).tolist()
