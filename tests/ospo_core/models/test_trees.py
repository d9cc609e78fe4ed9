from __future__ import annotations

import numpy as np

from ospo_core.models.trees import grow, paths

ROWS = [[5, 6, 7], [5, 6, 8, 9], [5, 6], [4, 6], [5, 6, 7]]


def test_rows_that_begin_alike_share_their_beginning() -> None:
    tree = grow(ROWS)
    assert tree.ids == [5, 6, 7, 8, 9, 4, 6]
    assert tree.parents == [-1, 0, 1, 1, 3, -1, 5]
    assert tree.ends == [2, 4, 1, 6, 2]


def test_a_position_sees_its_own_row_up_to_itself() -> None:
    trees = [grow(ROWS), grow([[1], [2]])]
    seen = paths(trees)
    assert seen.shape == (2, 7, 7)
    for tree, mask in zip(trees, seen, strict=True):
        for row, end in zip(ROWS if tree is trees[0] else [[1], [2]], tree.ends, strict=True):
            assert np.array(tree.ids)[np.flatnonzero(mask[end])].tolist() == row
    assert np.array_equal(seen[1, 2:], np.eye(7, dtype=bool)[2:]), "padding sees itself alone"
