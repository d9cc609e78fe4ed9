"""The promotion gate with people as judges: an evaluation waits for their answers, which come after it is published.

The manifest of such an evaluation says that it waits. Whoever needs the decision asks `decided_by_people`, which reads
the answers of now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.evaluation.labels import LabelReader
from ospo_core.evaluation.people import Preference, preference

PEOPLE = "people"
"""Value of `promotion.metric`, and name among the extra facts of an evaluation that waits for answers."""
WAITING = "waiting"
"""Name in a decision of whether answers are missing."""


def await_people(extra: Mapping[str, Any], wanted: int) -> dict[str, Any]:
    """Return the `extra` of an evaluation that people will decide, about `wanted` prompts or all there are."""
    decision = dict(extra["decision"])
    wanted = min(wanted, decision["overall"]["prompts"])
    return {
        **extra,
        PEOPLE: {"prompts": wanted},
        "decision": {**decision, **_verdict(None, wanted, decision["margin"])},
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
    found = preference(LabelReader(storage).of(manifest.fingerprint))
    verdict = _verdict(found, enough, decision["margin"])
    return manifest.model_copy(update={"extra": {**manifest.extra, "decision": {**decision, **verdict}}})


def _verdict(found: Preference | None, wanted: int, margin: float) -> dict[str, Any]:
    """Return what the answers decide: promote, waiting, and the reason.

    The child is promoted if the lower end of its net preference, twice the win rate less one, exceeds the margin.
    """
    missing = wanted - (found.win_rate.count if found is not None else 0)
    if found is None or missing > 0 or found.win_rate.value is None:
        reason = f"people have to judge {missing} more prompts, which `ospo browse` shows them blind"
        return {"promote": False, WAITING: True, "reason": reason}
    rate = found.win_rate
    promote = 2 * rate.low - 1 > margin
    share = f"{100 * found.win_rate.value:.1f} %"
    reason = f"people prefer the child in {share} of {rate.count} prompts, a tie counting half"
    reason += f"; 95 % interval [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    if not promote:
        reason += f", which does not lie above {50 * (1 + margin):.1f} %"
    return {"promote": promote, WAITING: False, "reason": reason}
