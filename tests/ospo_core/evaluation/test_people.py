"""What people's answers say, against values computed by hand; and that no answer is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ospo_core.artifacts.storage import Storage
from ospo_core.errors import DamagedArtifactError
from ospo_core.evaluation.labels import LabelReader, store_label
from ospo_core.evaluation.people import Label, judge_by_people, labels_missing, majority, preference, share

EVALUATION = "e" * 64


def fields(item: str, answer: str, person: str = "", **others: Any) -> dict[str, Any]:
    kind = "question" if answer in ("yes", "no") else "preference"
    asked = {"model": "child", "question": "is it red ?", "left": ""} if kind == "question" else {}
    common = {"model": "", "question": "", "left": "parent", "sample": 0, "guidance": 1.0, "session": 0, "number": 1}
    return (
        common
        | asked
        | {"evaluation": EVALUATION, "kind": kind, "item_id": item, "answer": answer, "person": person}
        | others
    )


def labels(*answers: tuple[str, str] | tuple[str, str, str]) -> list[Label]:
    """Answers in the order of time: (item, answer, person)."""
    return [
        Label.model_validate({**fields(*one), "label_id": f"{number:032x}", "at": f"2026-01-01T00:00:{number:02d}"})
        for number, one in enumerate(answers)
    ]


def test_win_rate_and_the_labels_that_are_missing() -> None:
    """8 of 10: Wilson 0.490 to 0.943; n = ((0.97998 + 0.84162 * 0.4) / 0.3)^2 = 19.26, so 10 more than 10."""
    found = preference(labels(*[(f"{n}", "child") for n in range(8)], ("8", "parent"), ("9", "parent")))
    assert (found.wins, found.ties, found.losses, found.labels) == (8, 0, 2, 10)
    assert found.win_rate.value == 0.8 and found.decided == "open" and found.missing == 10
    assert (found.win_rate.low, found.win_rate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(
    ("answers", "rate", "decided", "missing"),
    [
        ([], None, "open", None),
        (["child", "parent"], 0.5, "open", None),
        (["tie", "tie"], 0.5, "open", None),
        (["child"] * 9, 1.0, "child", 0),
        (["parent"] * 9, 0.0, "parent", 0),
        (["child", "child", "tie"], 5 / 6, "open", 13),
    ],
)
def test_decisions(answers: list[str], rate: float | None, decided: str, missing: int | None) -> None:
    found = preference(labels(*[(f"{number}", answer) for number, answer in enumerate(answers)]))
    assert found.win_rate.value == pytest.approx(rate) if rate is not None else found.win_rate.value is None
    assert (found.decided, found.missing) == (decided, missing)


def test_more_labels_are_missing_for_a_smaller_difference() -> None:
    needed = [labels_missing(share(value * 10, 10)) for value in (0.9, 0.8, 0.7, 0.6, 0.55)]
    assert all(one is not None for one in needed) and needed == sorted(needed, key=lambda one: one or 0)
    assert needed[-1] == 773  # ((0.97998 + 0.84162 * 0.49749) / 0.05)^2 = 782.5, so 783, less 10


def test_of_one_person_the_last_answer_counts_and_of_several_the_majority() -> None:
    given = labels(("a", "parent", "ann"), ("a", "child", "ann"), ("a", "child", "bob"), ("a", "parent", "eve"))
    assert list(majority(given).values()) == ["child"]
    assert list(majority(reversed(given)).values()) == ["child"]  # by time, not by order
    assert list(majority(given[1:2] + given[3:]).values()) == ["tie"]
    assert majority(labels(("a", "yes", "ann"), ("a", "no", "bob"))) == {}
    assert preference(given).labels == 4 and preference(given).win_rate.count == 1


def test_pictures_of_one_prompt_are_one_observation() -> None:
    given = [*labels(("a", "child"), ("b", "parent"))]
    second = given[0].model_copy(update={"sample": 1, "answer": "parent", "label_id": "f" * 32})
    found = preference([*given, second])
    assert found.win_rate.value == 0.25 and found.win_rate.count == 2 and (found.wins, found.losses) == (1, 2)


def test_the_judge_against_people() -> None:
    """6 hits, 2 false alarms, 1 miss, 1 refusal: precision 6/8 (Wilson 0.409 to 0.929), recall 6/7, agreement 7/10."""
    truths, claims = "yyyyyynnyn", "yyyyyyyynn"
    given = labels(*[(f"{number}", "yes" if one == "y" else "no") for number, one in enumerate(truths)])
    verdicts = {label.task: claims[number] == "y" for number, label in enumerate(given)}
    found = judge_by_people(given, verdicts)
    counts = (found.true_positives, found.false_positives, found.false_negatives, found.true_negatives)
    assert counts == (6, 2, 1, 1) and found.questions == 10
    assert (found.precision.value, found.recall.value, found.agreement.value) == pytest.approx((0.75, 6 / 7, 0.7))
    assert (found.precision.low, found.precision.high) == pytest.approx((0.4093, 0.9285), abs=1e-4)
    none = judge_by_people([], verdicts)
    assert none.precision.value is None and (none.precision.low, none.precision.high) == (0.0, 1.0)


@pytest.mark.parametrize("change", [{"answer": "both"}, {"evaluation": "../x"}, {"person": "x" * 41}, {"number": 0}])
def test_a_label_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        store_label(Storage(str(tmp_path)), {**fields("a", "tie"), **change})
    assert not list(tmp_path.iterdir())


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))

    def answer(person: str) -> None:
        for number in range(1, 21):
            store_label(storage, fields("a", "child", person, number=number))

    threads = [threading.Thread(target=answer, args=(name,)) for name in ("ann", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = LabelReader(storage).of(EVALUATION)
    assert sorted((label.person, label.number) for label in found) == [
        (name, number) for name in ("ann", "bob", "eve") for number in range(1, 21)
    ]
    assert LabelReader(storage).evaluations() == [EVALUATION]


def test_a_changed_answer_is_damage(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    store_label(storage, fields("a", "child"))
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes().replace(b"PAR1", b"PAR2"))
    with pytest.raises(DamagedArtifactError, match=file.name):
        LabelReader(storage).of(EVALUATION)
