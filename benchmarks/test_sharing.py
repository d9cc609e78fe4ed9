"""Export and import of pairs need no more memory for three times as many."""

from __future__ import annotations

from benchmarks import sharing


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    few, many = (sharing.measure_apart(size) for size in (1000, 3000))
    assert many.written > few.written + 30
    assert many.peak - few.peak < 40, (few, many)
