"""Sessions are drawn by seed, cover every task once, swap sides fairly, and go on where a person stopped."""

from __future__ import annotations

import pytest

from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.browsing.sessions import Only, draw_session, judge_verdicts
from ospo_core.evaluation.labels import store_label
from ospo_core.evaluation.people import PREFERENCE, QUESTION
from ospo_core.schema import CHILD, PARENT, StageName
from tests.support.browsed_round import HELD_OUT, BrowsedRound


def test_a_session_is_drawn_by_its_seed(made: BrowsedRound) -> None:
    manifest = made.manifests[StageName.EVALUATION]
    first, again, other = (draw_session(made.storage, manifest, seed) for seed in (7, 7, 8))
    assert first == again
    assert [asked.task for asked in first.tasks] != [asked.task for asked in other.tasks]
    assert {asked.task for asked in first.tasks} == {asked.task for asked in other.tasks}
    assert [asked.task.kind for asked in first.tasks[:4]] == [PREFERENCE, QUESTION] * 2
    assert len(first.tasks) == len({asked.task for asked in first.tasks}) == 3 * HELD_OUT


@pytest.mark.parametrize(("only", "count"), [("preference", HELD_OUT), ("question", 2 * HELD_OUT)])
def test_a_session_may_have_one_kind(made: BrowsedRound, only: Only, count: int) -> None:
    session = draw_session(made.storage, made.manifests[StageName.EVALUATION], 0, only)
    assert {asked.task.kind for asked in session.tasks} == {only} and len(session.tasks) == count


def test_sides_are_swapped_and_answers_mean_the_model_that_was_there(made: BrowsedRound) -> None:
    session = draw_session(made.storage, made.manifests[StageName.EVALUATION], 1, PREFERENCE)
    left = [asked.left for asked in session.tasks]
    assert HELD_OUT // 4 < left.count(PARENT) < 3 * HELD_OUT // 4
    for asked in session.tasks:
        right = CHILD if asked.left == PARENT else PARENT
        assert [asked.answer(one) for one in ("left", "right", "tie", "yes")] == [asked.left, right, "tie", None]
        assert (asked.places["left"] >= HELD_OUT) == (asked.left == CHILD)  # the child's shard is the second
    assert draw_session(made.storage, made.manifests[StageName.EVALUATION], 1, QUESTION).tasks[0].answer("left") is None


def test_a_person_goes_on_where_they_stopped_also_in_another_session(made: BrowsedRound) -> None:
    manifest = made.manifests[StageName.EVALUATION]
    session, other = draw_session(made.storage, manifest, 7), draw_session(made.storage, manifest, 8)
    asked = session.tasks[0]
    facts = {"evaluation": session.evaluation, "session": 7, "number": 1, "person": "ann", "left": asked.left}
    label = store_label(made.storage, {**asked.task._asdict(), **facts, "answer": "tie"})
    assert session.answered([label], "ann") == {1} and session.answered([label], "bob") == set()
    assert [one.task for one in other.tasks].index(asked.task) + 1 in other.answered([label], "ann")
    assert session.next_after(0, {1}) == 2 and session.next_after(2, {1, 3}) == 4
    total = len(session.tasks)
    assert session.next_after(total, {1}) == 2 and session.next_after(1, set(range(1, total + 1))) is None
    with pytest.raises(MissingObjectError):
        session.at(total + 1)


def test_verdicts_are_those_of_the_judge(made: BrowsedRound) -> None:
    verdicts = judge_verdicts(made.storage, made.manifests[StageName.EVALUATION])
    assert len(verdicts) == 2 * HELD_OUT and {task.kind for task in verdicts} == {QUESTION}
    assert set(verdicts.values()) == {True, False} or all(verdicts.values())


def test_what_was_not_compared_cannot_be_judged(made: BrowsedRound) -> None:
    alone = made.manifests[StageName.EVALUATION].model_copy(update={"shards": ()})
    with pytest.raises(MissingObjectError, match="compares two models"):
        draw_session(made.storage, alone, 0)
