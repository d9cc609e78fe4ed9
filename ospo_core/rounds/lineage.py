"""Where a checkpoint comes from, and what results cost; both are read from the manifests alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ospo_core.artifacts.checksummed_json import damaged
from ospo_core.artifacts.manifest import Manifest, load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config.sections import Section
from ospo_core.errors import ModelError
from ospo_core.evaluation.people_gate import decided_by_people
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import CURRENT, current_model, trained
from ospo_core.stages.run import content_of

_LEAST_DIGITS = 6


class Generation(Section):
    """One step of a lineage: a trained model and the stages that made its training data, last stage first.

    Args:
        model: digest of the model.
        parent: digest of the model from which it was trained.
        stages: its training and the results behind it; a stage whose manifest was deleted is missing.
        promoted: whether an evaluation in this storage promoted it; None if it was not evaluated.
    """

    model: str
    parent: str
    stages: tuple[Manifest, ...]
    promoted: bool | None = None


class Cost(Section):
    """The total cost of some results; `cpu_seconds` includes child processes, `seconds` is wall time."""

    results: int = 0
    rows: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    images: float = 0.0
    tokens: float = 0.0


def all_manifests(storage: Storage) -> list[Manifest]:
    """Return every finished result in a storage, by stage and then oldest first; no shard is read.

    An evaluation that people decide has the decision that their answers give now.

    Raises:
        DamagedArtifactError: a manifest is damaged; it is named.
    """
    found: list[Manifest] = []
    for stage in StageName:
        keys = [key for key in storage.list(stage.value) if key.endswith("/manifest.json")]
        loaded = [load_manifest(storage, stage, key.split("/")[-2], verify=False) for key in sorted(keys)]
        published = [decided_by_people(storage, one) for one in loaded if one is not None]
        found += sorted(published, key=lambda one: (one.created_at, one.fingerprint))
    return found


def find_model(storage: Storage, manifests: Iterable[Manifest], wanted: str) -> str:
    """Return the digest of a trained model that `current`, a digest or its first digits name.

    Raises:
        ModelError: they name no model of this storage, or several.
    """
    pointer = current_model(storage) if wanted == CURRENT else None
    name = pointer.digest if pointer is not None else wanted.removeprefix("models/")
    known = sorted({trained(one).model.digest for one in manifests if one.stage is StageName.TRAINING})
    fitting = [digest for digest in known if digest.startswith(name)]
    if len(fitting) != 1 or len(name) < _LEAST_DIGITS:
        listed = ", ".join(digest[:12] for digest in known) or "none"
        raise ModelError(
            "is not the name of one model trained in this storage",
            field="checkpoint",
            value=wanted,
            remedy=f"Give `{CURRENT}` or at least {_LEAST_DIGITS} digits of one of: {listed}",
        )
    return fitting[0]


def lineage(manifests: Sequence[Manifest], model: str) -> list[Generation]:
    """Return the generations of a model, itself first, back to the first one trained in this storage."""
    generations: list[Generation] = []
    trainings = {trained(one).model.digest: one for one in manifests if one.stage is StageName.TRAINING}
    while model in trainings and model not in {one.model for one in generations}:
        training = trainings[model]
        parent = trained(training).parent.digest
        stages = (training, *ancestors(manifests, training))
        generations.append(Generation(model=model, parent=parent, stages=stages, promoted=_verdict(manifests, model)))
        model = parent
    return generations


def ancestors(manifests: Sequence[Manifest], of: Manifest) -> list[Manifest]:
    """Return the results behind a result, direct and indirect, last stage first.

    A stage knows its upstream by content; of two results with the same content the older one is returned.
    """
    by_content: dict[tuple[str, str], Manifest] = {}
    for one in manifests:
        by_content.setdefault((one.stage.value, content_of(one)), one)
    found: dict[str, Manifest] = {}  # by folder
    waiting = [of]
    while waiting:
        for stage, content in waiting.pop().ingredients.get("upstream", {}).items():
            above = by_content.get((stage, content))
            if above is not None and above.prefix not in found:
                found[above.prefix] = above
                waiting.append(above)
    order = list(StageName)
    return sorted(found.values(), key=lambda one: order.index(one.stage), reverse=True)


def cost(manifests: Iterable[Manifest]) -> Cost:
    """Return the cost of some results."""
    found = list(manifests)
    return Cost(
        results=len(found),
        rows=sum(one.rows for one in found),
        seconds=sum(one.seconds for one in found),
        cpu_seconds=sum(one.cpu_seconds for one in found),
        gpu_seconds=sum(one.gpu_seconds for one in found),
        images=sum(one.counts.get("images", 0.0) for one in found),
        tokens=sum(count for one in found for name, count in one.counts.items() if name.endswith("tokens")),
    )


def promotes(evaluation: Manifest) -> bool:
    """Return whether a finished evaluation of a child decided to promote it.

    Raises:
        DamagedArtifactError: its manifest holds no decision.
    """
    decision = evaluation.extra.get("decision")
    if not isinstance(decision, dict) or not isinstance(decision.get("promote"), bool):
        raise damaged(evaluation.prefix, "its manifest holds no decision")
    return bool(decision["promote"])


def _verdict(manifests: Iterable[Manifest], model: str) -> bool | None:
    """Return the decision of the last evaluation in which the model was the child."""
    tests = (one for one in manifests if one.stage is StageName.EVALUATION and one.extra.get("child") == model)
    verdicts = [promotes(one) for one in tests]
    return verdicts[-1] if verdicts else None
