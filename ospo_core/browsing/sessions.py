"""Blind sessions: what a person is asked, drawn by a seed, so that a session can be continued and shared.

Nothing that a person sees says whose picture it is: sides are swapped by the seed, and pictures are named by the number
of the task and the side.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import polars as pl

from ospo_core.artifacts.ids import derive_seed
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.comparisons import DRAWN, compares, paired_places
from ospo_core.browsing.library import missing
from ospo_core.browsing.rows import PLACE, collected, lazy_rows
from ospo_core.evaluation.people import PREFERENCE, QUESTION, Label, Task
from ospo_core.schema import CHILD, PARENT
from ospo_core.selection.scoring import answer_score, is_yes

Only = Literal["both", "preference", "question"]
"""Which kinds of task a session has; with both they alternate."""

LARGEST_SEED = 2**31 - 1

LEFT, RIGHT, PICTURE = "left", "right", "picture"
"""The places of pictures on the page of a task; a question has one."""


@dataclass(frozen=True)
class Asked:
    """One task of a session: what is asked, the prompt, the model on the left, and the places of its pictures."""

    task: Task
    prompt: str
    left: str
    places: dict[str, int]

    def answer(self, given: str) -> str | None:
        """Return what `left`, `right`, `tie`, `yes` or `no` means, as labels have it; None if it does not fit."""
        if self.task.kind == QUESTION:
            return given if given in ("yes", "no") else None
        right = CHILD if self.left == PARENT else PARENT
        return {LEFT: self.left, RIGHT: right, "tie": "tie"}.get(given)


@dataclass(frozen=True)
class Session:
    """All tasks of a session, in order; task `n` is the n-th, from 1."""

    evaluation: str
    seed: int
    tasks: Sequence[Asked]

    def at(self, number: int) -> Asked:
        """Return task `number`; raise MissingObjectError if there is none."""
        if not 1 <= number <= len(self.tasks):
            raise missing("task", str(number), f"A session of this evaluation has the tasks 1 to {len(self.tasks)}")
        return self.tasks[number - 1]

    def answered(self, labels: Iterable[Label], person: str) -> set[int]:
        """Return the numbers of the tasks that a person has answered, in this session or in another."""
        done = {label.task for label in labels if label.person == person}
        return {number for number, asked in enumerate(self.tasks, start=1) if asked.task in done}

    def next_after(self, number: int, answered: set[int]) -> int | None:
        """Return the first task after `number` that is not answered, else the first of all; None if all are."""
        open_tasks = [one for one in range(1, len(self.tasks) + 1) if one not in answered]
        return next((one for one in open_tasks if one > number), open_tasks[0] if open_tasks else None)


def draw_session(storage: Storage, manifest: Manifest, seed: int, only: Only = "both") -> Session:
    """Return the session of an evaluation with this seed; the same arguments give the same session.

    Raises:
        MissingObjectError: the evaluation compares no models, or no question was asked.
        DamagedArtifactError: a shard is missing or cannot be read.
    """
    fingerprint = manifest.fingerprint
    preferences = _preferences(storage, manifest, seed) if only != QUESTION else []
    questions = _questions(storage, manifest, seed) if only != PREFERENCE else []
    mixed = chain.from_iterable(zip_longest(preferences, questions))
    tasks = [one for one in mixed if one is not None]
    if not tasks:
        raise missing("evaluation", fingerprint, "Choose an evaluation of a round, which compares two models")
    return Session(fingerprint, seed, tasks)


def judge_verdicts(storage: Storage, manifest: Manifest) -> dict[Task, bool]:
    """Return of every question about a picture of parent and child whether the judge answered yes."""
    return {
        _question_task(row): is_yes(answer_score(row["p_yes"], row["p_no"]))
        for row in _question_rows(storage, manifest).iter_rows(named=True)
    }


def _preferences(storage: Storage, manifest: Manifest, seed: int) -> list[Asked]:
    asked = []
    for row in paired_places(storage, manifest, "prompt").iter_rows(named=True):
        task = Task(PREFERENCE, row["item_id"], row["sample"], row["guidance"])
        places = {PARENT: row[PLACE], CHILD: row[f"{PLACE}_after"]}
        swapped = derive_seed("left", manifest.fingerprint, seed, task.item_id, task.sample, str(task.guidance)) % 2
        left, right = (CHILD, PARENT) if swapped else (PARENT, CHILD)
        asked.append(Asked(task, row["prompt"], left, {LEFT: places[left], RIGHT: places[right]}))
    return _shuffled(asked, manifest, seed, PREFERENCE)


def _questions(storage: Storage, manifest: Manifest, seed: int) -> list[Asked]:
    rows = _question_rows(storage, manifest).iter_rows(named=True)
    asked = {_question_task(row): Asked(_question_task(row), row["prompt"], "", {PICTURE: row[PLACE]}) for row in rows}
    return _shuffled(list(asked.values()), manifest, seed, QUESTION)


def _question_rows(storage: Storage, manifest: Manifest) -> pl.DataFrame:
    """Return a row per question about a picture of parent and child: `DRAWN`, model, prompt, question, p_yes, p_no."""
    columns = [*DRAWN, "model", "prompt"]
    if not compares(manifest):
        return pl.DataFrame(schema=dict.fromkeys([PLACE, *columns, "question", "p_yes", "p_no"], pl.Null))
    lazy = lazy_rows(storage, manifest).filter(pl.col("model").is_in([PARENT, CHILD]))
    lazy = lazy.filter(pl.col("answers").list.len() > 0).select(PLACE, *columns, "answers").explode("answers")
    return collected(manifest, lazy.unnest("answers"))


def _question_task(row: dict[str, object]) -> Task:
    return Task(QUESTION, *(row[name] for name in (*DRAWN, "model", "question")))  # type: ignore[arg-type]  # a row of the table


def _shuffled(asked: list[Asked], manifest: Manifest, seed: int, kind: str) -> list[Asked]:
    ordered = sorted(asked, key=lambda one: one.task)
    random.Random(derive_seed("session", manifest.fingerprint, seed, kind)).shuffle(ordered)
    return ordered
