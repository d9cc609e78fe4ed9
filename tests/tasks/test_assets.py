"""What a stage publishes reaches the server as assets: with what it was made from, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.assets import Asset
from prefect.events import Event
from prefect.runtime import flow_run

from flows.steps import run_step
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import StorageError
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.model_ref import ModelRef
from tasks import assets
from tests.support.fake_stages import NumbersStage, SquaresStage
from tests.support.prefect_reading import asset_events_of, task_runs_of
from tests.support.rounds import bound, made_up_model, small_round

SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAVERYSECRETINDEED", "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see"}
MADE = "prefect.asset.materialization.succeeded"


@pytest.fixture(autouse=True)
def fakes(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(STAGES, StageName.PROMPTS, NumbersStage())
    monkeypatch.setitem(STAGES, StageName.PERTURBATIONS, SquaresStage())
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    yield


@flow
def two_stages(round: Round) -> tuple[UUID, Manifest, Manifest]:
    numbers, _ = run_step(round, StageName.PROMPTS, {})
    squares, _ = run_step(round, StageName.PERTURBATIONS, {StageName.PROMPTS: numbers})
    return UUID(str(flow_run.id)), numbers, squares


def sources(event: Event) -> set[str]:
    """Keys of the assets that something was made from."""
    return {one.id for one in event.related if one.role == "asset"}


def test_results_are_materialised_once_and_referred_to_afterwards(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    storage = Storage(config.storage.root)
    one = Round(config, storage, made_up_model(config), recorded_id="0123456789ab")
    run, numbers, squares = two_stages(one)
    first = asset_events_of(run, count=5)
    made = {event.resource.id: event for event in first if event.event == MADE}
    keys = [f"file://{tmp_path}/store/{manifest.prefix}" for manifest in (numbers, squares)]
    assert list(made) == keys and len(first) == 5
    model_asset = f"file://{tmp_path}/model"
    assert sources(made[keys[0]]) == {model_asset} and sources(made[keys[1]]) == {keys[0], model_asset}
    assert made[keys[0]].payload == {
        "stage": "prompts",
        "fingerprint": numbers.fingerprint,
        "round": "0123456789ab",
        "rows": 3,
        "items_in": 6,
        "drops": {"odd": 3},
        "digest": numbers.digest,
        "seconds": round(numbers.seconds, 3),
    }
    assert made[keys[0]].resource.name == "prompts of small, seed 0"
    again, *_ = two_stages(one)
    second = asset_events_of(again, count=2)
    assert [(event.event, event.resource.id) for event in second] == [(assets.REFERENCED, key) for key in keys]
    told = "".join(event.model_dump_json() for event in [*first, *second])
    assert not any(secret in told for secret in SECRETS.values())
    tagged = [task.name for task in task_runs_of(run) if task.tags]
    assert tagged == [], "a tagged task run waits for the server's concurrency slots"
    assert "perturbations: publish" in {task.name for task in task_runs_of(run)}


def test_trained_model_is_an_asset_of_pairs_and_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "exists", lambda self, key: False)  # there is no such store; only names matter here
    config = small_round(tmp_path, storage={"root": "s3://bucket/ospo"})
    parent = ModelRef(digest="a" * 64, source="stored:models/aaa")
    pairs = Manifest(stage=StageName.PAIRS, fingerprint="f" * 64, version=1, rows=1, items_in=1)
    run = bound(STAGES[StageName.TRAINING], config, {StageName.PAIRS: pairs}, parent)
    file = {"name": "part-00000", "file": "part-00000.parquet", "sha256": "0" * 64}
    entry = ShardEntry(**file, table="", rows=1, bytes=1, extra={"merged": "models/b"})
    assert [asset.key for asset in assets.sources_of(run)] == [
        f"s3://bucket/ospo/pairs/{'f' * 64}",
        "s3://bucket/ospo/models/aaa",
    ]
    made = assets.results_of(run, [entry])
    assert made[0].key.startswith("s3://bucket/ospo/training/") and made[1].key == "s3://bucket/ospo/models/b"
    training = Manifest(
        stage=StageName.TRAINING,
        fingerprint="e" * 64,
        version=1,
        rows=1,
        items_in=1,
        extra={"merged": "models/b", "model_digest": "b" * 64, "parent_digest": "a" * 64},
    )
    later = bound(STAGES[StageName.EVALUATION], config, {StageName.TRAINING: training}, parent)
    assert "s3://bucket/ospo/models/b" in {asset.key for asset in assets.sources_of(later)}


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("/data/runs/pairs/ff", "file:///data/runs/pairs/ff"),
        ("s3://bucket/a b/pairs", "s3://bucket/a_b/pairs"),
        ("/data/100%/[x]", "file:///data/100_/_x_"),
    ],
)
def test_keys_are_addresses_that_prefect_accepts(address: str, key: str) -> None:
    assert Asset(key=assets.asset_key(address)).key == key


def test_a_model_of_the_hub_is_the_asset_of_its_commit(tmp_path: Path) -> None:
    model = ModelRef(digest="d" * 64, source=f"hub:owner/name@{'c' * 40}")
    key = assets.model_key(Storage(str(tmp_path)), model)
    assert Asset(key=key).key == f"hub://owner/name@{'c' * 40}"


def test_long_addresses_stay_apart() -> None:
    first, second = (assets.asset_key(f"/{letter * 600}/pairs/ff") for letter in "ab")
    assert first != second and first.endswith("/pairs/ff") and Asset(key=first).key == first


def test_no_storage_has_credentials_in_its_address() -> None:
    with pytest.raises(StorageError, match="must not carry credentials"):
        Storage("s3://name:secret@bucket/prefix")


def test_embedded_model_has_a_key_of_its_own(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert (
        assets.model_key(storage, ModelRef(digest="d" * 64, source="embedded:shapes"))
        == f"embedded://shapes/{'d' * 64}"
    )
