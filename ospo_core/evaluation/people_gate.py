"""The promotion gate with people as judges: an evaluation waits for their answers, which come after it is published.

The manifest of such an evaluation says that it waits. Whoever needs the decision asks `decided_by_people`, which reads
the answers of now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.evaluation.labels import LabelReader
from ospo_core.evaluation.people import Label, Share, preference

PEOPLE = "people"
"""Value of `promotion.metric`, and name among the extra facts of an evaluation that waits for answers."""
WAITING = "waiting"
"""Name in a decision of whether answers are missing."""

_CATEGORIES = "categories"


def await_people(extra: Mapping[str, Any], wanted: int, categories: Mapping[str, str]) -> dict[str, Any]:
    """Return the `extra` of an evaluation that people will decide, about `wanted` prompts or all there are.

    `categories` has the category of every prompt by its id, so that the answers alone decide later.
    """
    decision = dict(extra["decision"])
    wanted = min(wanted, decision["overall"]["prompts"])
    members: dict[str, list[str]] = defaultdict(list)
    for item, category in sorted(categories.items()):
        members[category].append(item)
    return {
        **extra,
        PEOPLE: {"prompts": wanted, _CATEGORIES: dict(sorted(members.items()))},
        "decision": {**decision, **_verdict([], wanted, decision, {})},
    }


def awaits_people(manifest: Manifest) -> bool:
    """Return whether people decide about the model of an evaluation."""
    return PEOPLE in manifest.extra


def decided_by_people(storage: Storage, manifest: Manifest, wanted: int | None = None) -> Manifest:
    """Return an evaluation with the decision that the answers of now give; any other manifest as it is.

    Args:
        storage: holds the answers.
        manifest: of any stage.
        wanted: number of prompts to be judged; None: as the evaluation was configured when it ran.

    Raises:
        DamagedArtifactError: an answer is not what was written.
    """
    if not awaits_people(manifest):
        return manifest
    decision: dict[str, Any] = dict(manifest.extra["decision"])
    enough = min(wanted or manifest.extra[PEOPLE]["prompts"], decision["overall"]["prompts"])
    labels = LabelReader(storage).of(manifest.fingerprint)
    verdict = _verdict(labels, enough, decision, manifest.extra[PEOPLE].get(_CATEGORIES, {}))
    return manifest.model_copy(update={"extra": {**manifest.extra, "decision": {**decision, **verdict}}})


def _verdict(
    labels: Sequence[Label], wanted: int, decision: Mapping[str, Any], categories: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Return what the answers decide: promote, waiting, and the reason.

    The child is promoted if the lower end of its net preference, twice the win rate less one, exceeds the margin, and
    no category is worse for certain: the upper end of its net preference must not lie below the largest drop allowed.
    Evaluations of earlier versions say nothing about categories.
    """
    rate, margin = preference(labels).win_rate, decision["margin"]
    if rate.value is None or rate.count < wanted:
        missing = wanted - rate.count
        reason = f"people have to judge {missing} more prompts, which `ospo browse` shows them blind"
        return {"promote": False, WAITING: True, "reason": reason}
    reason = f"people prefer the child in {_share(rate)}, a tie counting half; {_interval(rate)}"
    if not 2 * rate.low - 1 > margin:
        reason += f", which does not lie above {50 * (1 + margin):.1f} %"
        return {"promote": False, WAITING: False, "reason": reason}
    limit = (1 - decision["max_category_drop"]) / 2
    worse = {name: found for name, found in _by_category(labels, categories).items() if found.high < limit}
    if worse:
        names = ", ".join(f"{name} in {_share(found)}, {_interval(found)}" for name, found in worse.items())
        reason = f"people prefer the child in some category in less than {100 * limit:.1f} % of the prompts: {names}"
    return {"promote": not worse, WAITING: False, "reason": reason}


def _by_category(labels: Sequence[Label], categories: Mapping[str, Collection[str]]) -> dict[str, Share]:
    """Return the win rate of the child in every category."""
    return {
        name: preference([label for label in labels if label.item_id in set(items)]).win_rate
        for name, items in categories.items()
    }


def _share(rate: Share) -> str:
    return f"{100 * (rate.value or 0):.1f} % of {rate.count} prompts"


def _interval(rate: Share) -> str:
    return f"95 % interval [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
