"""Several continuations of one beginning as one row: a tree of positions in which equal beginnings stand once.

What a position computes depends only on the positions before it, so texts that begin alike share them. The mask rules
out what is not on a position's own path, so every text gets the result that it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache

from ospo_core.models.base import UnifiedModel


@dataclass(frozen=True)
class Tree:
    """Rows of ids merged where they begin alike.

    Attributes:
        ids: the `K` positions, each after the one it continues.
        parents: index of the position that each continues; -1 for the first of a row.
        ends: index of each row's last position.
    """

    ids: list[int]
    parents: list[int]
    ends: list[int]


def grow(rows: Sequence[Sequence[int]]) -> Tree:
    """Return the tree of `rows`, none of which is empty."""
    tree = Tree([], [], [])
    places: dict[tuple[int, int], int] = {}
    for row in rows:
        place = -1
        for token in row:
            parent = place
            place = places.setdefault((parent, token), len(tree.ids))
            if place == len(tree.ids):
                tree.ids.append(token)
                tree.parents.append(parent)
        tree.ends.append(place)
    return tree


def paths(trees: Sequence[Tree]) -> NDArray[np.bool_]:
    """Return which positions each position sees: itself and those before it on its path, `[B, K, K]`.

    Trees with fewer than `K` positions are padded on the right; a padded position sees itself, and none sees it.
    """
    width = max(len(tree.ids) for tree in trees)
    parents = np.full((len(trees), width), -1)
    for row, tree in enumerate(trees):
        parents[row, : len(tree.parents)] = tree.parents
    seen = np.zeros((len(trees), width + 1, width), dtype=np.bool_)  # the last is that of no position: it sees nothing
    every = np.arange(len(trees))
    for place in range(width):
        seen[:, place] = seen[every, parents[:, place]]
        seen[:, place, place] = True
    return seen[:, :width]


def run_trees(model: UnifiedModel, past: Cache, trees: Sequence[Tree]) -> torch.Tensor:
    """Run the language model over a tree per row, each of which continues a beginning of `L` positions.

    Args:
        model: the model.
        past: keys and values of the `B` beginnings, to which those of the trees are added.
        trees: `B` trees.

    Returns:
        The states of the trees' `ends`, in their order, `[rows of all trees, D]`.
    """
    seen = torch.from_numpy(paths(trees)).to(model.device)
    count, width = seen.shape[:2]
    ids = [tree.ids + [model.pad_id] * (width - len(tree.ids)) for tree in trees]
    length = past.get_seq_length()
    hidden = torch.cat([seen.new_zeros((count, width, length)), ~seen], dim=2)[:, None]
    embeddings = model.embed_text(torch.tensor(ids, device=model.device))
    states = model.backbone(
        inputs_embeds=embeddings,
        attention_mask=torch.zeros_like(hidden, dtype=embeddings.dtype).masked_fill_(hidden, -torch.inf),
        position_ids=length + seen.sum(dim=-1) - 1,
        past_key_values=past,
        use_cache=True,
    ).last_hidden_state
    ends = [row * width + end for row, tree in enumerate(trees) for end in tree.ends]
    found: torch.Tensor = states.flatten(0, 1)[torch.tensor(ends, device=model.device)]
    return found
