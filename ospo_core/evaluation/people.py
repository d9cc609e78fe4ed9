"""What people's answers say: is the child better than its parent, may the judge be trusted, how many are missing.

Pure functions. A task that several people answered counts once, by the majority of their last answers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ospo_core.evaluation.statistics import Z_95, Interval, wilson_interval
from ospo_core.schema import CHILD, PARENT

PREFERENCE, QUESTION = "preference", "question"
"""The two kinds of task: which of two pictures fits the prompt better, and a yes/no question about one picture."""
TIE, YES, NO = "tie", "yes", "no"

Z_80 = 0.8416212335729143
"""The 80 % quantile of the standard normal distribution: a power of 80 %."""

_SCORES = {PARENT: 0.0, TIE: 0.5, CHILD: 1.0}


class Label(BaseModel):
    """One answer of one person: a row of the table `labels`.

    Args:
        label_id: of this answer alone.
        evaluation: fingerprint of the evaluation that drew the pictures.
        session, number: seed of the session, and number of the task in it, from 1.
        kind: `preference` or `question`.
        item_id, sample, guidance: which pictures.
        model: question: who drew the picture, `parent` or `child`; else empty.
        question: question: its text; else empty.
        left: preference: whose picture was on the left; else empty.
        answer: preference: `parent`, `child` or `tie`; question: `yes` or `no`.
        person: who answered, as they call themselves; may be empty.
        at: time, UTC, ISO 8601 with microseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label_id: str = Field(pattern="^[0-9a-f]{32}$")
    evaluation: str = Field(pattern="^[0-9a-f]{64}$")
    session: int = Field(ge=0)
    number: int = Field(ge=1)
    kind: Literal["preference", "question"]
    item_id: str
    sample: int
    guidance: float
    model: Literal["", "parent", "child"]
    question: str
    left: Literal["", "parent", "child"]
    answer: Literal["parent", "child", "tie", "yes", "no"]
    person: str = Field(max_length=40)
    at: str

    @property
    def task(self) -> Task:
        """What was asked, whatever the session."""
        return Task(self.kind, self.item_id, self.sample, self.guidance, self.model, self.question)


class Task(NamedTuple):
    """What a person is asked; `model` and `question` are empty for a preference. Sessions of all seeds share tasks."""

    kind: str
    item_id: str
    sample: int
    guidance: float
    model: str = ""
    question: str = ""


class Share(BaseModel):
    """A share from 0 to 1 with its 95 % Wilson interval, of `count` observations; None if there are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    low: float
    high: float
    count: int


class Preference(BaseModel):
    """Which model people prefer. `win_rate` counts a tie as half a win of the child, and a prompt once.

    Args:
        labels: answers given, also those that a later one of the same person replaced.
        wins, ties, losses: tasks, from the child's side.
        decided: `child`, `parent`, or `open` while the interval contains one half.
        missing: prompts still to label before the difference would probably be decided; 0 if it is, None if it cannot
            be said (no label yet, or exactly one half).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: int
    wins: int
    ties: int
    losses: int
    win_rate: Share
    decided: Literal["child", "parent", "open"]
    missing: int | None


class JudgeByPeople(BaseModel):
    """The judge's yes/no answers against those of people, who are taken to be right.

    `precision` is the share of the judge's yes that people confirm, `recall` the share of people's yes that the judge
    gave, `agreement` that of equal answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: int
    questions: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    precision: Share
    recall: Share
    agreement: Share


def majority(labels: Iterable[Label]) -> dict[Task, str]:
    """Return the answer of every task: of each person the last one counts, of several people the most frequent.

    Without a majority a preference is a tie, and a question is left out.
    """
    last: dict[tuple[Task, str], Label] = {}
    for label in sorted(labels, key=lambda one: (one.at, one.label_id)):
        last[label.task, label.person] = label
    votes: dict[Task, Counter[str]] = defaultdict(Counter)
    for (task, _), label in last.items():
        votes[task][label.answer] += 1
    found: dict[Task, str] = {}
    for task, counts in votes.items():
        first, *others = counts.most_common()
        if not others or others[0][1] < first[1]:
            found[task] = first[0]
        elif task.kind == PREFERENCE:
            found[task] = TIE
    return found


def preference(labels: Iterable[Label]) -> Preference:
    """Return which model people prefer, by the labels of kind `preference`.

    The pictures of one prompt are not independent, so their mean is one observation.
    """
    given = [label for label in labels if label.kind == PREFERENCE]
    answers = majority(given)
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for task, answer in answers.items():
        by_prompt[task.item_id].append(_SCORES[answer])
    means, counts = [fmean(scores) for scores in by_prompt.values()], Counter(answers.values())
    rate = share(sum(means), len(means))
    decided: Literal["child", "parent", "open"] = "child" if rate.low > 0.5 else "parent" if rate.high < 0.5 else "open"
    return Preference(
        labels=len(given),
        wins=counts[CHILD],
        ties=counts[TIE],
        losses=counts[PARENT],
        win_rate=rate,
        decided=decided,
        missing=0 if decided != "open" else labels_missing(rate),
    )


def judge_by_people(labels: Iterable[Label], verdicts: Mapping[Task, bool]) -> JudgeByPeople:
    """Compare the judge with people; `verdicts` says of each question whether the judge answered yes."""
    given = [label for label in labels if label.kind == QUESTION]
    answers = {task: answer == YES for task, answer in majority(given).items() if task in verdicts}
    counts = Counter((verdicts[task], truth) for task, truth in answers.items())
    hits, false_alarms = counts[True, True], counts[True, False]
    misses, refusals = counts[False, True], counts[False, False]
    return JudgeByPeople(
        labels=len(given),
        questions=len(answers),
        true_positives=hits,
        false_positives=false_alarms,
        false_negatives=misses,
        true_negatives=refusals,
        precision=share(hits, hits + false_alarms),
        recall=share(hits, hits + misses),
        agreement=share(hits + refusals, len(answers)),
    )


def labels_missing(rate: Share) -> int | None:
    """Return how many more observations would decide whether a share differs from one half, if it is what it seems.

    That is the sample size of a two-sided test at 5 % with a power of 80 %:
    `n = ((z_0.975 / 2 + z_0.8 sqrt(p (1 - p))) / |p - 1/2|)^2`, less those there are, and at least one.
    None if there is no observation, or the share is one half.
    """
    if rate.value is None or rate.value == 0.5:
        return None
    spread = Z_95 / 2 + Z_80 * math.sqrt(rate.value * (1 - rate.value))
    return max(1, math.ceil((spread / abs(rate.value - 0.5)) ** 2) - rate.count)


def share(hits: float, count: int) -> Share:
    """Return `hits` of `count` as a share with its interval; `hits` may be a sum of halves."""
    value = hits / count if count else None
    interval = Interval(0.0, 1.0) if value is None else wilson_interval(value, count)
    return Share(value=value, low=interval.low, high=interval.high, count=count)
