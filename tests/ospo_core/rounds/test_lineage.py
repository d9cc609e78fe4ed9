"""Lineage and cost from manifests alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.manifest import publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ModelError
from ospo_core.rounds.lineage import Cost, all_manifests, ancestors, cost, find_model, lineage
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelPointer, promote
from tests.support.manifests import generation, made


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Two generations, the first of them promoted, and an evaluation that refused the second."""
    storage = Storage(str(tmp_path))
    first, second = generation(1, "0" * 64), generation(2, "1" * 64)
    judged = [
        made(StageName.EVALUATION, 1, (first[-1],), child="1" * 64, decision={"promote": True}),
        made(StageName.EVALUATION, 2, (second[-1],), child="2" * 64, decision={"promote": False}),
    ]
    for one in (*first, *second, *judged):
        publish_manifest(storage, one)
    made_by = {"training": first[-1].fingerprint, "evaluation": judged[0].fingerprint}
    promote(storage, ModelPointer(digest="1" * 64, key=f"models/{'1' * 64}", parent="0" * 64, **made_by))
    return storage


def test_a_model_is_followed_to_its_prompts_and_parents(storage: Storage) -> None:
    found = lineage(all_manifests(storage), "2" * 64)
    assert [one.model[0] for one in found] == ["2", "1"] and found[-1].parent == "0" * 64
    assert [one.promoted for one in found] == [False, True]
    stages = [StageName.TRAINING, StageName.PAIRS, StageName.IMAGES, StageName.PROMPTS]
    assert [one.stage for one in found[0].stages] == stages
    assert {one.fingerprint[-1] for one in found[0].stages} == {"2"}


def test_a_deleted_ancestor_is_missing_and_nothing_else(storage: Storage) -> None:
    storage.delete_folder(f"images/{2:064x}")
    manifests = all_manifests(storage)
    training = next(one for one in manifests if one.stage is StageName.TRAINING and one.rows == 20)
    assert [one.stage for one in ancestors(manifests, training)] == [StageName.PAIRS, StageName.PROMPTS]


def test_models_are_found_by_pointer_and_by_first_digits(storage: Storage) -> None:
    manifests = all_manifests(storage)
    assert find_model(storage, manifests, "current") == "1" * 64
    assert find_model(storage, manifests, "222222") == find_model(storage, manifests, f"models/{'2' * 64}") == "2" * 64


@pytest.mark.parametrize("wanted", ["333333", "2", ""])
def test_an_unknown_or_short_name_is_refused_with_the_models_there_are(storage: Storage, wanted: str) -> None:
    with pytest.raises(ModelError, match="111111111111, 222222222222"):
        find_model(storage, all_manifests(storage), wanted)


def test_nothing_promoted_means_no_current_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="one of: none"):
        find_model(Storage(str(tmp_path)), [], "current")


def test_costs_are_added_up() -> None:
    assert cost(generation(2, "0" * 64)) == Cost(
        results=4, rows=80, seconds=8.0, cpu_seconds=16.0, gpu_seconds=4.0, images=12.0, tokens=200.0
    )
    assert cost([]) == Cost()
