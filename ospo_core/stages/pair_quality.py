"""How good the model's own selection is by the oracle of the embedded world. This measures and selects nothing.

An image *counts as good* if it meets the rule's thresholds for a chosen image, and *as bad* if it meets those for a
rejected one, whichever prompt rendered it. Precision is the share of good (bad) images that the oracle finds right
(wrong), recall the share of right (wrong) images that count as good (bad). `best_of_n`, which has no thresholds, is
measured by those of v2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ospo_core.artifacts.pictures import open_picture
from ospo_core.config.sections import SelectionConfig
from ospo_core.selection.rules import may_be_chosen, may_be_rejected
from ospo_core.selection.scoring import read_scores

Row = Mapping[str, Any]

RIGHT, WRONG = "oracle_right", "oracle_wrong"
GOOD, GOOD_RIGHT = "good", "good_oracle_right"
BAD, BAD_WRONG = "bad", "bad_oracle_wrong"
PAIRS, CHOSEN_RIGHT, REJECTED_WRONG = "pairs_judged", "chosen_oracle_right", "rejected_oracle_wrong"

_PLACE = ["item_id", "variant", "side"]
_PAIR = ["item_id", "chosen_variant", "chosen_side", "rejected_variant", "rejected_side"]


def quality_counts(
    prompts: Sequence[Row], images: Sequence[Row], scores: pa.Table, pairs: pa.Table, config: SelectionConfig
) -> dict[str, int]:
    """Return the tallies of one shard; prompts that the oracle does not understand are left out."""
    right = _verdicts(images, {row["item_id"]: row["prompt"] for row in prompts})
    tally: Counter[str] = Counter()
    good, bad = may_be_chosen(config).alias("good"), may_be_rejected(config).alias("bad")
    for item, variant, side, is_good, is_bad in read_scores(scores).select(*_PLACE, good, bad).iter_rows():
        truth = right.get((item, variant, side))
        if truth is None:
            continue
        tally[RIGHT if truth else WRONG] += 1
        if is_good:
            tally[GOOD] += 1
            tally[GOOD_RIGHT] += truth
        if is_bad:
            tally[BAD] += 1
            tally[BAD_WRONG] += not truth
    for pair in pairs.select(_PAIR).to_pylist():
        chosen, rejected = (
            right.get((pair["item_id"], pair[f"{place}_variant"], pair[f"{place}_side"]))
            for place in ("chosen", "rejected")
        )
        if chosen is not None and rejected is not None:
            tally[PAIRS] += 1
            tally[CHOSEN_RIGHT] += chosen
            tally[REJECTED_WRONG] += not rejected
    return dict(tally)


def quality(counts: Mapping[str, float]) -> dict[str, float | None] | None:
    """Return precision and recall of good and bad, and the share of pairs that are right; None without an oracle."""
    if not counts.get(RIGHT, 0) + counts.get(WRONG, 0):
        return None
    shares = {
        "good_precision": (GOOD_RIGHT, GOOD),
        "good_recall": (GOOD_RIGHT, RIGHT),
        "bad_precision": (BAD_WRONG, BAD),
        "bad_recall": (BAD_WRONG, WRONG),
        "chosen_right": (CHOSEN_RIGHT, PAIRS),
        "rejected_wrong": (REJECTED_WRONG, PAIRS),
    }
    return {
        name: counts.get(part, 0) / counts[whole] if counts.get(whole) else None
        for name, (part, whole) in shares.items()
    }


def _verdicts(images: Sequence[Row], prompts: Mapping[str, str]) -> dict[tuple[str, int, str], bool]:
    """Return for each image whether the oracle finds its base prompt in it; images of other sizes are left out."""
    from ospo_core.shapes.grammar import GrammarError, Sentence, parse
    from ospo_core.shapes.oracle import read_grids, shows
    from ospo_core.shapes.world import SIZE, read_scene

    sentences: dict[str, Sentence] = {}
    for item_id, prompt in prompts.items():
        try:
            sentences[item_id] = parse(prompt)
        except GrammarError:
            continue
    asked = [row for row in images if row["item_id"] in sentences]
    opened = [(row, np.asarray(open_picture(row["image"]["bytes"]).convert("RGB"))) for row in asked]
    known = [(row, picture) for row, picture in opened if picture.shape[:2] == (SIZE, SIZE)]
    if not known:
        return {}
    grids = read_grids(np.stack([picture for _, picture in known]))
    return {
        (row["item_id"], row["variant"], row["side"]): shows(read_scene(grid), sentences[row["item_id"]])
        for (row, _), grid in zip(known, grids, strict=True)
    }
