"""Credentials from a Prefect block reach the environment of the process, and errors never show them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret

from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError
from ospo_core.rounds import Round
from ospo_core.stages import STAGES
from tasks.credentials import NAMES, open_storage, use_credentials
from tests.support.rounds import made_up_model, small_round

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(autouse=True)
def clean(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in NAMES:
        monkeypatch.setenv(name, "before")  # so that what the block sets is undone
    use_credentials.cache_clear()
    yield
    use_credentials.cache_clear()


def saved(value: Any) -> str:
    name = f"store-{uuid.uuid4().hex[:8]}"
    Secret(value=value).save(name)
    return name


def test_opening_the_storage_takes_the_credentials_of_the_block(tmp_path: Path) -> None:
    block = saved({"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": SECRET})
    open_storage(small_round(tmp_path, storage={"credentials_block": block}))
    found = {name: os.environ[name] for name in NAMES}
    assert found == {
        **dict.fromkeys(NAMES, "before"),
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def test_block_changes_no_fingerprint(tmp_path: Path) -> None:
    config, named = small_round(tmp_path), small_round(tmp_path, storage={"credentials_block": "store"})
    assert [stage.fields(config) for stage in STAGES.values()] == [stage.fields(named) for stage in STAGES.values()]
    storage, model = Storage(config.storage.root), made_up_model(config)
    assert Round(config, storage, model).id == Round(named, storage, model).id


@pytest.mark.parametrize(
    "value", [SECRET, {}, {"AWS_SECRET": SECRET}, [SECRET]], ids=["text", "empty", "unknown name", "list"]
)
def test_block_that_holds_something_else_is_refused_without_showing_it(value: Any) -> None:
    block = saved(value)
    with pytest.raises(ConfigError, match=r"storage\.credentials_block: holds something other") as caught:
        use_credentials(block)
    assert SECRET not in str(caught.value) and block in str(caught.value)


def test_missing_block_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no Secret block of this name.*'nowhere'"):
        use_credentials("nowhere")
