"""Slices of prompts merged by position give what merging their rows in one list gives, to the byte."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import encode_table, write_shard
from ospo_core.prompts.filters import SURPLUS
from ospo_core.schema import StageName, SubCategory, category_of, table_from_rows
from ospo_core.stages import merging
from ospo_core.stages.prompts import PromptsStage
from tests.support.rounds import ScriptedResources, finished, small_round, text_run
from tests.support.simple_filters import SimpleDeduplicator

NAMES = list(SubCategory)[:3]
Rows = list[dict[str, Any]]


def slices_of_rows(count: int, size: int = 40) -> list[tuple[SubCategory, Rows]]:
    rng = random.Random(count)
    prompts = written_prompts(count)
    slices = []
    for start in range(0, count, size):
        name = rng.choice(NAMES)
        slices.append((name, [prompt_row(name, text, rng) for text in prompts[start : start + size]]))
    return slices


def written_prompts(count: int) -> list[str]:
    """Sentences of 6 to 24 words; a tenth repeat an earlier one and a tenth add a word to an earlier one."""
    rng, words = random.Random(1), [f"word{number}" for number in range(300)]
    texts: list[str] = []
    while len(texts) < count:
        kind = rng.random()
        if kind < 0.1 and texts:
            texts.append(rng.choice(texts).capitalize() + ".")
        elif kind < 0.2 and texts:
            texts.append(f"{rng.choice(texts)} {rng.choice(words)}")
        else:
            texts.append(" ".join(rng.choices(words, k=rng.randint(6, 24))))
    return texts


def prompt_row(name: SubCategory, text: str, rng: random.Random) -> dict[str, Any]:
    words = text.split()
    return {
        "item_id": f"{rng.getrandbits(64):016x}",
        "category": category_of(name).value,
        "sub_category": name.value,
        "prompt": text,
        "concepts": words[: rng.randint(0, 3)],
        "relations": [words[:3]] * rng.randint(0, 2),
    }


def publish(storage: Storage, slices: list[tuple[SubCategory, Rows]]) -> Manifest:
    entries = []
    for number, (name, rows) in enumerate(slices):
        key = f"prompts/{'0' * 64}/raw-{number}.parquet"
        extra = {"sub_category": name.value, "wave": 0, "short": number % 7 == 6}
        entries.append(write_shard(storage, key, table_from_rows("prompts", rows), extra=extra))
    return Manifest(stage=StageName.PROMPTS, fingerprint="0" * 64, version=1, shards=tuple(entries), rows=0, items_in=0)


def simply_merged(
    slices: list[tuple[SubCategory, Rows]], quotas: dict[SubCategory, int], similarity: float
) -> tuple[Rows, Counter[str]]:
    fresh, drops = SimpleDeduplicator(similarity), Counter[str]()
    accepted: dict[SubCategory, Rows] = {name: [] for name in SubCategory}
    for name, rows in slices:
        for row in rows:
            reason = fresh(row["prompt"]) if len(accepted[name]) < quotas[name] else SURPLUS
            if reason:
                drops[reason] += 1
            else:
                accepted[name].append(row)
    return [row for rows in accepted.values() for row in rows], drops


@pytest.mark.parametrize(("similarity", "quota", "size"), [(0.9, 10_000, 32), (0.9, 90, 1000), (1.0, 150, 7)])
def test_shards_and_drops_are_those_of_one_list(tmp_path: Path, similarity: float, quota: int, size: int) -> None:
    storage, slices, quotas = Storage(str(tmp_path)), slices_of_rows(600), dict.fromkeys(NAMES, quota)
    written = publish(storage, slices)
    merged = merging.merge(storage, written, quotas, similarity)
    rows, drops = simply_merged(slices, quotas, similarity)
    assert merged.drops == drops and drops
    assert merged.counts == Counter(SubCategory(row["sub_category"]) for row in rows)
    assert merged.spent == {name for number, (name, _) in enumerate(slices) if number % 7 == 6}
    made = list(merging.accepted_shards(storage, written, merged, size))
    expected = [table_from_rows("prompts", rows[start : start + size]) for start in range(0, len(rows), size)]
    assert [encode_table(table) for table in made] == [encode_table(table) for table in expected]


def test_slices_without_an_accepted_row_give_no_shard(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    written = publish(storage, slices_of_rows(80))
    merged = merging.merge(storage, written, dict.fromkeys(NAMES, 0), 0.9)
    assert merged.drops == {SURPLUS: 80}
    assert list(merging.accepted_shards(storage, written, merged, 10)) == []


def test_cutting_into_shards_holds_a_few_slices_at_a_time(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        storage = Storage(str(tmp_path / str(count)))
        written = publish(storage, slices_of_rows(count))
        merged = merging.merge(storage, written, dict.fromkeys(NAMES, count), 0.9)
        tracemalloc.start()
        rows = sum(table.num_rows for table in merging.accepted_shards(storage, written, merged, 50))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows == merged.counts.total()
        return highest

    peak(200)  # what is made once, at the first use
    assert peak(4000) < 2 * peak(500)


def test_slices_of_a_later_wave_share_one_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merges: list[int] = []

    def counted(storage: Storage, written: Manifest, *others: Any) -> merging.Merged:
        merges.append(len(written.shards))
        return merging.merge(storage, written, *others)

    monkeypatch.setattr("ospo_core.stages.prompts.merge", counted)
    config = small_round(tmp_path, prompts={"quotas": {"color_2": 60, "complex": 60}, "attempts_per_prompt": 30})
    made = finished(text_run(PromptsStage(), config, ScriptedResources()))
    assert made.rows == 120
    assert len(merges) > 1 and sorted(set(merges)) == merges  # one merge a wave, however many slices it has
