"""Finds out about pictures what their prompts need, with one evaluator per job; which models these are. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ospo_core.config.sections import EMBEDDED, BenchmarkConfig
from ospo_core.errors import MissingModelError, ModelError
from ospo_core.evaluation.benchmarks.detections import Detection
from ospo_core.evaluation.benchmarks.embedded import EmbeddedEyes
from ospo_core.evaluation.benchmarks.scoring import Evidence, Needs
from ospo_core.evaluation.judges import PictureJudge
from ospo_core.models.hub import repository_of, snapshot
from ospo_core.models.locate import check_weights, read_config


class Role(StrEnum):
    """The jobs of evaluators; an option of `benchmark` each."""

    VQA = "vqa"
    DETECTOR = "detector"
    CLIP = "clip"
    DEPTH = "depth"


MODEL_TYPES = {
    Role.VQA: ("blip",),
    Role.DETECTOR: ("owlv2", "owlvit", "grounding-dino"),
    Role.CLIP: ("clip",),
    Role.DEPTH: ("dpt", "depth_anything"),
}
"""`model_type` of the models that can do each job."""


def roles_of(needs: Iterable[Needs]) -> list[Role]:
    """Return the evaluators that are needed."""
    asked = list(needs)
    wanted = {
        Role.VQA: any(one.questions for one in asked),
        Role.DETECTOR: any(one.labels for one in asked),
        Role.CLIP: any(one.text or one.colored for one in asked),
        Role.DEPTH: any(one.depth for one in asked),
    }
    return [role for role, needed in wanted.items() if needed]


def evaluator_folder(config: BenchmarkConfig, role: Role) -> Path:
    """Return the folder of the model that does a job, downloaded once if it is a repository of the hub.

    Raises:
        MissingModelError: there is no such folder or repository.
        ModelError: it is not a model for this job, or has no safetensors.
    """
    path, option = str(getattr(config, role.value)), f"benchmark.{role.value}"
    repository = repository_of(path)
    try:
        folder = snapshot(repository, download=True) if repository is not None else Path(path).expanduser()
    except MissingModelError as error:
        raise MissingModelError(error.problem, field=option, value=path, remedy=error.remedy) from error
    if not folder.is_dir():
        raise MissingModelError(
            "no such folder", field=option, value=path, remedy="Give a folder in transformers' format, or OWNER/NAME"
        )
    kind = str(read_config(folder).get("model_type"))
    if kind not in MODEL_TYPES[role]:
        raise ModelError(
            f"is a model of type {kind}, which cannot do this job",
            field=option,
            value=path,
            remedy=f"Give a model of type {' or '.join(MODEL_TYPES[role])}",
        )
    check_weights(folder)
    return folder


def is_embedded(config: BenchmarkConfig, role: Role) -> bool:
    """Return whether the embedded world's oracle does a job."""
    return bool(getattr(config, role.value) == EMBEDDED)


class Evaluators:
    """One evaluator per job, loaded when it is first needed and kept until `close`."""

    def __init__(self, load: Callable[[Role], Any], config: BenchmarkConfig) -> None:
        self._load, self._config = load, config
        self._held: dict[Role, Any] = {}
        self._oracle = EmbeddedEyes()
        self.counts: Counter[str] = Counter()

    def gather(self, pictures: Sequence[bytes], needs: Sequence[Needs]) -> list[Evidence]:
        """Return what was found out about each PNG of `pictures`."""
        evidence = [Evidence() for _ in pictures]
        for place, given in self._each(pictures, needs, lambda need: bool(need.questions), self._answer):
            evidence[place] = replace(evidence[place], answers=given)
        for place, given in self._each(pictures, needs, lambda need: bool(need.labels), self._detect):
            evidence[place] = replace(evidence[place], found=given)
        for place, given in self._each(pictures, needs, lambda need: bool(need.text), self._compare):
            evidence[place] = replace(evidence[place], similarity=given)
        for place, given in self._each(pictures, needs, lambda need: need.depth, self._depth):
            evidence[place] = replace(evidence[place], depth=given)
        for place, given in self._each(pictures, needs, lambda need: bool(need.oracle), self._judge):
            evidence[place] = replace(evidence[place], verdict=given)
        return evidence

    def close(self) -> None:
        """Give all evaluators back."""
        self._held.clear()

    def _role(self, role: Role) -> Any:
        if role not in self._held:
            self._held[role] = EmbeddedEyes() if is_embedded(self._config, role) else self._load(role)
        return self._held[role]

    @staticmethod
    def _each(
        pictures: Sequence[bytes],
        needs: Sequence[Needs],
        wanted: Callable[[Needs], bool],
        find: Callable[[list[bytes], list[Needs]], Sequence[Any]],
    ) -> list[tuple[int, Any]]:
        """Return the place of each picture that needs something, with what `find` found out about it."""
        places = [place for place, need in enumerate(needs) if wanted(need)]
        if not places:
            return []
        return list(zip(places, find([pictures[i] for i in places], [needs[i] for i in places]), strict=True))

    def _answer(self, pictures: list[bytes], needs: list[Needs]) -> Any:
        return self._role(Role.VQA).answer(pictures, [need.questions for need in needs])

    def _compare(self, pictures: list[bytes], needs: list[Needs]) -> Any:
        return self._role(Role.CLIP).similarity(pictures, [need.text for need in needs])

    def _depth(self, pictures: list[bytes], needs: list[Needs]) -> Any:
        return self._role(Role.DEPTH).depth(pictures)

    def _judge(self, pictures: list[bytes], needs: list[Needs]) -> Any:
        return self._oracle.verdicts(pictures, [need.oracle for need in needs])

    def _detect(self, pictures: list[bytes], needs: list[Needs]) -> list[list[Detection]]:
        limits = [self._config.counting_threshold if need.counting else self._config.threshold for need in needs]
        found: list[list[Detection]] = self._role(Role.DETECTOR).detect(
            pictures, [need.labels for need in needs], limits
        )
        if is_embedded(self._config, Role.DETECTOR):
            return found  # it knows the colours
        return [
            self._colored(picture, some, need.colored)
            for picture, some, need in zip(pictures, found, needs, strict=True)
        ]

    def _colored(self, picture: bytes, found: list[Detection], labels: frozenset[str]) -> list[Detection]:
        """Name the colours of the objects whose colour matters."""
        places = [place for place, one in enumerate(found) if one.label in labels]
        if not places:
            return found
        names = self._role(Role.CLIP).colors(picture, [found[place] for place in places])
        named: Mapping[int, str] = dict(zip(places, names, strict=True))
        return [replace(one, color=named.get(place, one.color)) for place, one in enumerate(found)]


class AskedJudge:
    """A judge of yes/no questions in the place of all evaluators."""

    def __init__(self, judge: PictureJudge) -> None:
        self._judge = judge
        self.counts = judge.counts

    def gather(self, pictures: Sequence[bytes], needs: Sequence[Needs]) -> list[Evidence]:
        """Return the answers about each PNG of `pictures`."""
        given = self._judge.answer(pictures, [need.questions for need in needs])
        return [Evidence(answers=answers) for answers in given]

    def close(self) -> None:
        """Close the judge."""
        self._judge.close()
