"""Who judges held-out pictures: one frozen judge for parent and child (docs/architecture.md, decision 10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, cast

from ospo_core.artifacts.manifest import Manifest, load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import ModelError, StageError
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import (
    CURRENT,
    ModelRef,
    model_folder,
    named_model,
    role_model,
    trained,
)

if TYPE_CHECKING:
    from ospo_core.evaluation.judges import PictureJudge
    from ospo_core.stages.run import StageRun

OPTION = "evaluation.judge"
_NAME_A_FOLDER = f"Name the folder of the judge in {OPTION}"


class Judge(Section):
    """Who judges, and who decomposes held-out prompts into questions.

    Args:
        kind: what `evaluation.judge` says; `model` for a path, and for evaluators.
        model: the model that judges; None if each model judges its own pictures, or a server does.
        served_model: name of the model on the server.
        asking: the model that decomposes prompts that come without questions; None if all come with questions.
        evaluators: of a benchmark, the model for each job, instead of a judge; None for a judge.
    """

    kind: Literal["start", "parent", "model", "self", "endpoint"]
    model: ModelRef | None = None
    served_model: str = ""
    asking: ModelRef | None = None
    evaluators: dict[str, ModelRef] | None = None

    @property
    def name(self) -> str:
        """Digest of the model, or its name on the server; empty if each model judges its own pictures."""
        return self.model.digest if self.model is not None else self.served_model

    def identity(self) -> dict[str, str]:
        """Return what enters the fingerprint: models by digest, so neither folders nor addresses nor `kind`."""
        if self.evaluators is not None:
            return {job: ref.digest for job, ref in self.evaluators.items()}
        by = "model" if self.model is not None else self.kind
        return {by: self.name} | ({"asking": self.asking.digest} if self.asking is not None else {})

    def with_sources(self, change: Callable[[str], str]) -> Self:
        """Return a copy whose models have the sources that `change` makes of theirs."""

        def moved(ref: ModelRef | None) -> ModelRef | None:
            return ref.model_copy(update={"source": change(ref.source)}) if ref is not None else None

        evaluators = {job: moved(ref) for job, ref in self.evaluators.items()} if self.evaluators is not None else None
        updated = {"model": moved(self.model), "asking": moved(self.asking), "evaluators": evaluators}
        return self.model_copy(update=updated)


def find_judge(config: RoundConfig, storage: Storage, model: ModelRef) -> Judge:
    """Return who judges in a round, or an evaluation, that starts from `model`.

    Raises:
        ModelError: `evaluation.judge` names no model, or the first model of the lineage is not to be found.
    """
    wanted = config.evaluation.judge
    complete = all(prompt.questions for prompt in load_evaluation_prompts(config.evaluation))
    asking = None if complete else role_model(config, storage, model, "writer") or first_model(config, storage, model)
    if wanted in ("self", "endpoint"):
        kind = cast(Literal["self", "endpoint"], wanted)
        return Judge(kind=kind, served_model=config.evaluation.judge_model or "", asking=asking)
    if wanted == "parent":
        return Judge(kind="parent", model=model, asking=asking)
    if wanted == "start":
        return Judge(kind="start", model=first_model(config, storage, model), asking=asking)
    try:
        found = named_model(config, storage, wanted)
    except ModelError as error:
        raise ModelError(
            error.problem,
            field=OPTION,
            value=wanted,
            remedy="Give start, parent, self, endpoint or a model's path",
        ) from error
    return Judge(kind="model", model=found, asking=asking)


def first_model(config: RoundConfig, storage: Storage, model: ModelRef) -> ModelRef:
    """Return the model from which the first round of the lineage of `model` in this storage started.

    The trainings in the storage say from which model each was trained; the first one's files are verified.

    Raises:
        ModelError: a training of the lineage is gone, or the first model is no longer where it was.
    """
    if not storage.exists(f"models/{model.digest}/config.json"):
        return model
    trainings, first = _trainings(storage), model
    while (training := trainings.pop(first.digest, None)) is not None:
        first = trained(training).parent
    if first.is_stored:
        raise ModelError(
            "the training that made this model is gone, so the first model of its lineage is unknown",
            field=OPTION,
            value=first.digest[:12],
            remedy=_NAME_A_FOLDER,
        )
    for source in dict.fromkeys((first.source, config.model.path)):
        if source not in ("", CURRENT) and (found := _verified(first.digest, source, config, storage)):
            return found
    raise ModelError(
        "the model that the first round started from is no longer there",
        field=OPTION,
        value=f"{first.digest[:12]} ({first.source or 'made by an earlier version'})",
        remedy=f"Restore it. {_NAME_A_FOLDER}",
    )


def _trainings(storage: Storage) -> dict[str, Manifest]:
    """Return the finished trainings of a storage by the digest of the model that each made."""
    name = StageName.TRAINING
    keys = [key for key in storage.list(name.value) if key.endswith("/manifest.json")]
    found = (load_manifest(storage, name, key.split("/")[-2], verify=False) for key in sorted(keys))
    return {trained(one).model.digest: one for one in found if one is not None}


def _verified(digest: str, source: str, config: RoundConfig, storage: Storage) -> ModelRef | None:
    """Return the reference to a model if its files are still at `source`."""
    ref = ModelRef(digest=digest, source=source)
    try:
        model_folder(ref, storage, Path(config.storage.scratch).expanduser())
    except ModelError:
        return None
    return ref


def judge_of(run: StageRun) -> Judge:
    """Return who judges in this run.

    Raises:
        StageError: it was bound to none.
    """
    if run.judge is None:
        raise StageError("has no judge", field=f"stage {run.stage.name}", remedy="Bind it with StageRun.bind")
    return run.judge


def open_judge(run: StageRun, drew: ModelRef) -> PictureJudge:
    """Return the judge, ready to be asked, of pictures that the model `drew` has drawn."""
    settings, who = run.config.evaluation, judge_of(run)
    if settings.judge_url is not None:
        from ospo_core.evaluation.endpoint_judge import EndpointJudge

        return EndpointJudge(settings.judge_url, who.served_model)
    from ospo_core.evaluation.judges import ModelJudge

    return ModelJudge(run.image_model(who.model or drew), settings.batch_size)
