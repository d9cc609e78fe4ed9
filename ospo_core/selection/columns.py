"""The columns of the scores table as arrays, and rows put side by side by item: what the rules reckon with.

Letters in shapes: R rows of the scores table (one an image), N items (prompts), S images of an item at most, V
perturbed prompts of an item at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ospo_core.schema import Side
from ospo_core.selection.scoring import image_score

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NONE = -1
"""In a grid of row numbers: there is no such row."""


@dataclass(frozen=True)
class Lists:
    """Numbers in lists of different lengths.

    Args:
        values: the numbers of all lists, one list after the other.
        starts: `[R + 1]`, list r is `values[starts[r]:starts[r + 1]]`.
    """

    values: Floats
    starts: Ints

    @property
    def lengths(self) -> Ints:
        """How many numbers each list has, `[R]`."""
        return np.diff(self.starts)

    def count(self, flags: Bools) -> Ints:
        """Return how many of the flags of each list are set, `[R]`; there is a flag for every number."""
        sums = np.concatenate(([0], np.cumsum(flags)))
        return np.asarray(sums[self.starts[1:]] - sums[self.starts[:-1]], dtype=np.int64)

    def first(self, rows: Ints, count: int) -> Floats:
        """Return the first `count` numbers of some lists, `[len(rows), count]`; what a list does not have is NaN."""
        inside = (rows != NONE)[:, None] & (np.arange(count) < np.append(self.lengths, 0)[rows][:, None])
        places = self.starts[rows][:, None] + np.arange(count)
        return np.append(self.values, np.nan)[np.where(inside, places, NONE)]


@dataclass(frozen=True)
class ImageScores:
    """The scores table, one row an image.

    Args:
        variant: index of the perturbation whose noise the image was rendered with, `[R]`.
        negative: whether the perturbed prompt rendered it, and not the base prompt, `[R]`.
        answers: `s_k` of the base prompt's questions, each in [-1, 1].
        score: `S`, their mean, `[R]`.
        logprob: `l(y|x)`, mean log-probability of its tokens (nats a token) under the base prompt, `[R]`.
        logprob_negatives: `l(y|x~)` for each perturbed prompt, by variant.
        about: `s_k` of the perturbed prompts' questions on this image.
        about_variant: which perturbed prompt each number of `about` is of.
    """

    variant: Ints
    negative: Bools
    answers: Lists
    score: Floats
    logprob: Floats
    logprob_negatives: Lists
    about: Lists
    about_variant: Ints


def read_scores(table: pa.Table) -> ImageScores:
    """Return the columns of a scores table; an image without a score has the mean of its answers."""
    asked, _ = _answer_lists(table["answers"])
    about, about_answers = _answer_lists(table["negative_answers"])
    logprobs, starts = _flattened(table["logprob_negatives"])
    score = _numbers(table["score"])
    for row in np.flatnonzero(table["score"].is_null().to_numpy()):
        score[row] = image_score(asked.values[asked.starts[row] : asked.starts[row + 1]].tolist())
    return ImageScores(
        variant=variants_of(table),
        negative=sides_of(table),
        answers=asked,
        score=score,
        logprob=_numbers(table["logprob_base"]),
        logprob_negatives=Lists(_numbers(logprobs), starts),
        about=about,
        about_variant=_integers(about_answers.field("variant")),
    )


def variants_of(table: pa.Table) -> Ints:
    """Return the column `variant`."""
    return _integers(table["variant"].combine_chunks())


def sides_of(table: pa.Table) -> Bools:
    """Return whether the column `side` says that the image is of the perturbed prompt."""
    return np.asarray(pc.equal(table["side"], Side.NEGATIVE.value).to_numpy(), dtype=np.bool_)


def side_by_side(item: Ints, order: Ints, items: int) -> Ints:
    """Return row numbers in a grid, one line an item, `[N, at least 1]`; NONE fills what a line has too few.

    Args:
        item: number of each row's item.
        order: the rows wanted, those of an item together and in the order in which they are to stand in its line.
        items: N.
    """
    counts = np.bincount(item[order], minlength=items)
    grid = np.full((items, max(1, int(counts.max(initial=0)))), NONE, dtype=np.int64)
    first = np.cumsum(counts) - counts
    grid[item[order], np.arange(len(order)) - first[item[order]]] = order
    return grid


def _answer_lists(column: pa.ChunkedArray) -> tuple[Lists, pa.StructArray]:
    """Return `s_k = p(yes) - p(no)` of a column of answers, and the answers themselves, one after the other."""
    answers, starts = _flattened(column)
    return Lists(_numbers(answers.field("p_yes")) - _numbers(answers.field("p_no")), starts), answers


def _flattened(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """Return what is in the lists of a column, and where each list starts and ends; a missing list is empty."""
    lists = column.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return lists.flatten(), np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _numbers(column: pa.Array | pa.ChunkedArray) -> Floats:
    """Return a column of numbers; what is missing is NaN."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.array(whole.to_numpy(zero_copy_only=False), dtype=np.float64)


def _integers(column: pa.Array) -> Ints:
    """Return a column of whole numbers."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
