from __future__ import annotations

import pytest

from ospo_core.stages.pairs import _nouns


@pytest.mark.parametrize(
    ("concepts", "nouns"),
    [
        (["red circle", "large blue square"], ["circle", "square"]),
        (["a glass of water", "A man IN a red hat"], ["glass", "man"]),
        (["cup with a handle made of wood"], ["cup"]),
        (["circle", "red circle"], ["circle"]),
        (["of", "  ", ""], ["of"]),
        ([], []),
    ],
)
def test_nouns_are_the_heads_of_concepts(concepts: list[str], nouns: list[str]) -> None:
    assert _nouns(concepts) == nouns
