"""Words that a perturbation changed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.prompts.diff import changed_words

TEXT = st.lists(st.sampled_from(["a", "red", "blue", "star", "of"]), max_size=8).map(" ".join)


def test_a_replaced_word_is_removed_then_added() -> None:
    assert changed_words("a red circle", "a blue circle") == [
        ("same", "a"),
        ("removed", "red"),
        ("added", "blue"),
        ("same", "circle"),
    ]
    assert changed_words("", "a star") == [("added", "a star")] and changed_words("", "") == []


@settings(max_examples=50, deadline=None)
@given(TEXT, TEXT)
def test_both_texts_can_be_put_together_again(first: str, second: str) -> None:
    changes = changed_words(first, second)
    assert " ".join(change.words for change in changes if change.op != "added") == first
    assert " ".join(change.words for change in changes if change.op != "removed") == second
