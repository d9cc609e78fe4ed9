"""The pages in Markdown say what the manifests say, show real pictures, and stay small."""

from __future__ import annotations

import random
import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.report import markdown
from ospo_core.schema import StageName
from tests.support.synthetic_round import metrics_rows, pair_row, pictures, publish, whole_round

SMALL = 400_000


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("pages")))


@pytest.fixture(scope="module")
def round_made(storage: Storage) -> dict[StageName, Manifest]:
    return whole_round(storage, count=60, after=0.9)


def svg_text(page: str) -> str:
    """All text of a page's one picture, which is SVG."""
    ((kind, data),) = pictures(page)
    assert kind == "svg+xml"
    return " ".join(ElementTree.fromstring(data).itertext())


def test_sentence_says_what_came_out_what_was_dropped_and_the_time(round_made: dict[StageName, Manifest]) -> None:
    said = markdown.stage_sentence(round_made[StageName.PAIRS])
    assert said.startswith("pairs: 24 preference pairs of 660; dropped 190 no chosen candidate, 61 ")
    assert said.endswith("; 1 min 44 s")
    training = round_made[StageName.TRAINING].model_copy(update={"counts": {"steps": 120, "pairs": 24}})
    assert markdown.stage_sentence(training) == "training: 120 steps on 24 pairs; 2 min 44 s"
    assert "promoted: accuracy rose" in markdown.stage_sentence(round_made[StageName.EVALUATION])


def test_sentence_of_a_model_by_itself_gives_its_accuracy(round_made: dict[StageName, Manifest]) -> None:
    groups = {"all": {"prompts": 4, "accuracy": 0.5, "low": 0.25, "high": 0.75}}
    alone = round_made[StageName.EVALUATION].model_copy(
        update={"extra": {"accuracy": {"metric": "vqa", "groups": groups}}}
    )
    assert markdown.stage_sentence(alone).endswith("50.0 % right (25.0 % to 75.0 %) by vqa")


def test_kept_and_dropped_account_for_all_that_came_in(round_made: dict[StageName, Manifest]) -> None:
    rows = markdown.kept_rows(round_made[StageName.PROMPTS])
    assert [row["items"] for row in rows] == [609, 41, 7, 3]
    assert rows[0] == {"result": "kept", "items": 609, "share": "92.3 %"}
    assert sum(int(row["items"]) for row in rows) == round_made[StageName.PROMPTS].items_in


def test_stage_page_has_figures_drops_place_and_identity(
    storage: Storage, round_made: dict[StageName, Manifest]
) -> None:
    prompts = round_made[StageName.PROMPTS].model_copy(
        update={
            "counts": {"calls": 978.0},
            "extra": {"unmet_quotas": {"color_1": 2}, "quality": {"good_recall": 0.5}},
            "ingredients": {"model": {"digest": "d" * 64}, "upstream": {"pairs": "e" * 64}},
        }
    )
    page = markdown.stage_page(storage, prompts)
    assert "| dropped: duplicate | 41 | 6.2 % |" in page and "| calls | 978 |" in page
    assert "| missing: colour, one object | 2 |" in page and "| good recall | 50.0 % |" in page
    assert f"`{storage.root}/{prompts.prefix}`" in page and f"`{prompts.digest}`" in page
    assert f"| model | `{'d' * 12}` |" in page and f"| from pairs | `{'e' * 12}` |" in page


def test_pairs_page_shows_enlarged_pictures_and_the_telling_question(
    storage: Storage, round_made: dict[StageName, Manifest]
) -> None:
    page = markdown.pairs_page(storage, round_made[StageName.PAIRS], seed=0, count=6)
    shown = pictures(page)
    assert len(shown) == 12 and len(page) < SMALL
    for kind, data in shown:
        with Image.open(BytesIO(data)) as image:
            assert (kind, image.size) == ("png", (128, 128))
            pixels = image.convert("RGB")
            assert all(pixels.getpixel((x, 64)) == pixels.getpixel((x + 1, 65)) for x in range(0, 128, 2))
    assert "# 6 of 24 preference pairs" in page and re.search(r"~~\w+~~ \*\*\w+\*\*", page)
    answers = r"\| \+\d\.\d\d \| [+\u2212]?\d\.\d\d \| [01]\.\d\d \| 0\.[012]\d \| is there a \w+ \w+ \? \|"
    assert len(re.findall(answers, page)) == 6
    assert page == markdown.pairs_page(storage, round_made[StageName.PAIRS], seed=0, count=6)


def test_pairs_page_looks_into_a_bounded_part_of_a_large_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, rng = Storage(str(tmp_path)), random.Random(0)
    whole = publish(storage, StageName.PAIRS, "pairs", [pair_row(rng, index) for index in range(4)])
    (shard,) = whole.shards
    empty = shard.model_copy(update={"rows": 0, "file": "not-there"})
    many = whole.model_copy(update={"rows": 40, "shards": (empty, *[shard.model_copy() for _ in range(10)])})
    monkeypatch.setattr(markdown, "_BYTES_READ", shard.bytes - 1)
    page = markdown.pairs_page(storage, many, seed=0, count=6)
    assert "# 4 of 40 preference pairs" in page and len(pictures(page)) == 8


def test_curves_are_one_picture_that_stands_alone(storage: Storage, round_made: dict[StageName, Manifest]) -> None:
    page = markdown.curves_page(storage, round_made[StageName.TRAINING])
    assert "Loss and its parts" in svg_text(page) and "| learning rate | 5e-05 | 5e-05 |" in page
    assert len(page) < SMALL


def test_curves_of_a_long_training_are_as_small(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    long = publish(storage, StageName.TRAINING, "metrics", metrics_rows(random.Random(0), 4000))
    assert len(markdown.curves_page(storage, long)) < SMALL


def test_round_page_has_verdict_chart_stages_and_report(round_made: dict[StageName, Manifest]) -> None:
    page = markdown.round_page("small, seed 1", round_made, [StageName.PAIRS], "s3://bucket/reports/one.html")
    assert page.startswith("# small, seed 1: promoted\n\nAccuracy rose")
    assert "all prompts" in svg_text(page) and "`s3://bucket/reports/one.html`" in page
    assert page.count("| cached |") == 7 and page.count("| run |") == 1
    assert re.search(r"\| all prompts \| 60 \| \d+\.\d % \(\d+\.\d to \d+\.\d\) \|", page)
