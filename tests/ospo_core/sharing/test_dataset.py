"""Exported data opens with the stock library `datasets`, pictures and all, and its card tells where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import Image, load_dataset

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError, DamagedArtifactError, StageError
from ospo_core.schema import StageName
from ospo_core.sharing import Part
from ospo_core.sharing.dataset import export_dataset
from tests.support.preference_pairs import pixels, preference_pair, provenance, publish_pairs

Published = tuple[Storage, dict[StageName, Manifest]]


@pytest.fixture
def published(tmp_path: Path) -> Published:
    storage = Storage(str(tmp_path / "store"))
    return storage, publish_pairs(storage)


def opened(folder: Path, *name: str) -> Mapping[str, Any]:
    return load_dataset(str(folder), *name, cache_dir=str(folder.parent / "cache"))


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_datasets_opens_the_pairs_split_by_category_with_pictures(published: Published, tmp_path: Path) -> None:
    export_dataset(*published, tmp_path / "out", [], provenance("f" * 64))
    data = opened(tmp_path / "out")
    assert {name: len(rows) for name, rows in data.items()} == {"attribute": 3, "layout": 3, "non_spatial": 3}
    found = sorted((row for rows in data.values() for row in rows), key=lambda row: row["position"])
    assert isinstance(data["layout"].features["chosen"], Image)
    for number, row in enumerate(found):
        assert row["position"] == number and row["tokens_model"] == "f" * 64
        assert np.array_equal(np.asarray(row["chosen"]), pixels(2 * number))
        assert np.array_equal(np.asarray(row["rejected"]), pixels(2 * number + 1))
        same = {name: value for name, value in preference_pair(number).items() if not name.endswith("_image")}
        assert {name: row[name] for name in same} == same


def test_rows_for_trl_prefer_the_prompt_of_a_picture_to_its_perturbed_prompt(
    published: Published, tmp_path: Path
) -> None:
    export_dataset(*published, tmp_path / "out", [Part.TRL], provenance())
    row = opened(tmp_path / "out", "trl")["attribute"][0]
    assert [part["type"] for part in row["prompt"][0]["content"]].count("image") == len(row["images"]) == 1
    assert np.array_equal(np.asarray(row["images"][0]), pixels(0))
    for side, text in (("chosen", "a red circle above 0 stars"), ("rejected", "a blue circle above 0 stars")):
        assert row[side] == [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def test_pairs_without_a_perturbed_prompt_have_no_row_for_trl(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "store"))
    manifests = publish_pairs(storage, negative_prompt=None)
    tables = export_dataset(storage, manifests, tmp_path / "out", [Part.TRL], provenance())
    assert [table.total for table in tables] == [9, 0]
    assert len(opened(tmp_path / "out")["layout"]) == 3


def test_prompts_on_demand_are_a_configuration_of_their_own(published: Published, tmp_path: Path) -> None:
    export_dataset(*published, tmp_path / "out", [Part.PROMPTS], provenance())
    prompts = opened(tmp_path / "out", "prompts")
    assert sum(len(rows) for rows in prompts.values()) == 9
    assert prompts["layout"][0]["prompt"] == "a red circle above 1 stars"


def test_the_card_tells_the_origin_and_no_folder_of_a_machine(published: Published, tmp_path: Path) -> None:
    export_dataset(*published, tmp_path / "out", [], provenance("f" * 64, license="cc-by-4.0"))
    facts, body = card_of(tmp_path / "out")
    assert facts["license"] == "cc-by-4.0" and facts["size_categories"] == ["n<1K"]
    assert [one["name"] for one in facts["dataset_info"][0]["splits"]] == ["attribute", "layout", "non_spatial"]
    for words in ("f" * 64, "`abc123`", "3 no chosen candidate", "| pairs | 12 | 9 |", "cc-by-4.0", "a local folder"):
        assert words in body
    assert "secret" not in body


def test_no_licence_is_claimed_that_nobody_stated(published: Published, tmp_path: Path) -> None:
    export_dataset(*published, tmp_path / "out", [], provenance())
    facts, body = card_of(tmp_path / "out")
    assert "license" not in facts and "None is stated" in body


def test_text_of_a_profile_cannot_change_the_card(published: Published, tmp_path: Path) -> None:
    export_dataset(*published, tmp_path / "out", [], provenance(profile="a\n---\nlicense: mit\n# b | c"))
    facts, body = card_of(tmp_path / "out")
    assert "license" not in facts and "\n# b" not in body


def test_a_category_is_no_file_name(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "store"))
    export_dataset(storage, publish_pairs(storage, category="../../x"), tmp_path / "out", [], provenance())
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["other-00000.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]


def test_large_splits_are_several_files(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ospo_core.sharing.dataset._FILE_BYTES", 1)
    export_dataset(*published, tmp_path / "out", [], provenance())
    assert len(list((tmp_path / "out" / "data").glob("layout-*.parquet"))) == 2
    assert [row["position"] for row in opened(tmp_path / "out")["layout"]] == [1, 4, 7]


@pytest.mark.parametrize("text", ["cc by", "mit\nprivate: false", "", "-x"])
def test_a_licence_is_one_identifier(text: str) -> None:
    with pytest.raises(ConfigError, match="--license"):
        provenance(license=text)


@pytest.mark.parametrize("kind", ["file", "folder with a file", "link"])
def test_what_is_there_is_not_replaced(published: Published, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="there already"):
        export_dataset(*published, out, [], provenance())
    assert kind == "link" or (out if kind == "file" else out / "mine").read_text() == "mine"


def test_an_export_that_fails_leaves_nothing(published: Published, tmp_path: Path) -> None:
    storage, manifests = published
    with pytest.raises(StageError, match="stage images: is not done"):
        export_dataset(storage, manifests, tmp_path / "out", [Part.IMAGES], provenance())
    storage.write(manifests[StageName.PAIRS].shard_key(1), b"damaged")
    with pytest.raises(DamagedArtifactError):
        export_dataset(storage, manifests, tmp_path / "out", [], provenance())
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
