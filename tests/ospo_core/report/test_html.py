"""The report is one file on its own, its figures are those of the manifests, and it escapes what it shows."""

from __future__ import annotations

import random
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import DamagedArtifactError
from ospo_core.report.html import render_report, write_report
from ospo_core.schema import StageName
from tests.support.synthetic_round import pair_row, publish, whole_round

CONFIG = RoundConfig(name="shapes", seed=3)
VOID = {"meta", "img", "br", "link"}
Manifests = dict[StageName, Manifest]


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [value for key, value in attrs if key in {"src", "href", "xlink:href"} and value]
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag == "img":
            self.pictures.append(named)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="module")
def manifests(storage: Storage) -> Manifests:
    return whole_round(storage)


@pytest.fixture(scope="module")
def text(storage: Storage, manifests: Manifests) -> str:
    return render_report(storage, manifests, CONFIG, ran=[StageName.EVALUATION])


def test_the_page_is_well_formed_and_needs_nothing_from_outside(text: str) -> None:
    page = Page(text)
    assert page.open == [] and text.startswith("<!doctype html>")
    assert len(page.ids) == len(set(page.ids))
    outside = [link for link in page.addresses if not link.startswith(("#", "data:image/"))]
    assert outside == [] and "@import" not in text and "<script" not in text
    assert {link[1:] for link in page.addresses if link.startswith("#")} <= set(page.ids)


def test_every_picture_and_chart_has_words(text: str) -> None:
    page = Page(text)
    assert len(page.pictures) == 2 * 6 + 2 * 4 * 6 + 4
    assert all(picture["alt"] and picture["class"] in {"pixels", "chart"} for picture in page.pictures)
    charts = [str(picture["src"]) for picture in page.pictures if picture["class"] == "chart"]
    words = ["".join(ElementTree.fromstring(b64decode(chart.partition(",")[2])).itertext()) for chart in charts]
    titles = ["before (95 % interval)", "Pictures in pairs", "Loss and its parts", "Held-out pictures"]
    assert [title in chart for title, chart in zip(titles, words, strict=True)] == [True] * 4
    assert any("chosen: 24 values, mean 0." in str(picture["alt"]) for picture in page.pictures)
    assert "image-rendering: pixelated" in text and "prefers-color-scheme: dark" in text


def test_figures_are_those_of_the_decision(text: str, manifests: Manifests) -> None:
    decision = manifests[StageName.EVALUATION].extra["decision"]
    assert decision["promote"] and "<h2>Promoted</h2>" in text and decision["reason"] in text
    for group in [decision["overall"], *decision["categories"], *decision["sub_categories"]]:
        assert f"{100 * group['parent']:.1f} %" in text and f"{100 * group['child']:.1f} %" in text
    auc = manifests[StageName.EVALUATION].extra["judge"]["child"]["auc"]
    assert f"<td>{auc:.3f}</td>" in text


def test_drops_are_shown_by_reason_and_stages_by_source(text: str) -> None:
    assert "<b>190</b> no chosen candidate" in text and "<b>41</b> duplicate" in text
    assert text.count('class="tag run"') == 1 and text.count('class="tag cached"') == 7


def test_changed_words_are_marked_and_answers_shown(text: str) -> None:
    assert len(re.findall(r"<del>\w+</del> *<ins>\w+</ins> ", text)) == 6
    assert "is there a yellow circle ?" in text and "p(yes), chosen" in text


def test_the_four_fates_account_for_every_picture(text: str) -> None:
    counts = [int(count) for count in re.findall(r'class="count">(\d+) of 120', text)]
    assert len(counts) == 4 and sum(counts) == 120
    assert [name in text for name in ("Improved", "Worsened", "Right both times", "Wrong both times")] == [True] * 4


def test_the_same_round_gives_the_same_bytes(storage: Storage, manifests: Manifests, text: str) -> None:
    assert render_report(storage, manifests, CONFIG, ran=[StageName.EVALUATION]) == text
    other = render_report(storage, manifests, RoundConfig(name="shapes", seed=4), ran=[StageName.EVALUATION])
    assert other != text, "the seed chooses the examples"


def test_a_refusal_says_why(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    manifests = whole_round(storage, count=24, after=0.4)
    text = render_report(storage, {StageName.EVALUATION: manifests[StageName.EVALUATION]}, CONFIG)
    assert "<h2>Refused</h2>" in text and "does not lie above the margin" in text
    assert 'id="pairs"' not in text and "Source</th>" not in text


def test_a_round_that_has_just_begun_has_a_report(storage: Storage, manifests: Manifests) -> None:
    text = render_report(storage, {StageName.PROMPTS: manifests[StageName.PROMPTS]}, CONFIG)
    assert "Not evaluated yet" in text and Page(text).open == []
    assert Page(render_report(storage, {}, CONFIG)).open == []


def test_a_model_evaluated_by_itself_has_its_accuracy_shown(tmp_path: Path) -> None:
    group = {"prompts": 40, "accuracy": 0.425, "low": 0.285, "high": 0.578}
    extra = {"accuracy": {"metric": "oracle", "groups": {"all": group, "layout": group}}}
    evaluation = publish(Storage(str(tmp_path)), StageName.EVALUATION, "evaluation", [], extra=extra)
    text = render_report(Storage(str(tmp_path)), {StageName.EVALUATION: evaluation}, CONFIG)
    assert text.count("42.5 %") == 2 and "28.5" in text and "Promoted" not in text and Page(text).open == []


def test_no_pairs_is_said(tmp_path: Path) -> None:
    pairs = publish(Storage(str(tmp_path)), StageName.PAIRS, "pairs", [], items_in=5, drops={"no_questions": 5})
    text = render_report(Storage(str(tmp_path)), {StageName.PAIRS: pairs}, CONFIG)
    assert "No pair was kept" in text and "<b>5</b> no questions" in text


def test_everything_shown_is_escaped(tmp_path: Path) -> None:
    nasty = '<script>alert("x")</script> $x_1$ & {{ 7 * 7 }}'
    storage = Storage(str(tmp_path))
    row = {**pair_row(random.Random(0), 0), "prompt": nasty, "negative_prompt": nasty + " y", "sub_category": nasty}
    pairs = publish(storage, StageName.PAIRS, "pairs", [row], drops={nasty: 1})
    metrics = [{"step": step, "name": nasty, "value": 0.5} for step in (1, 2)]
    training = publish(storage, StageName.TRAINING, "metrics", metrics)
    config = RoundConfig(name=nasty)
    text = render_report(storage, {StageName.PAIRS: pairs, StageName.TRAINING: training}, config)
    assert "<script" not in text and "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]
    assert "&lt;script&gt;" in text and Page(text).open == []


def test_the_file_is_written_where_it_was_asked_for(storage: Storage, manifests: Manifests) -> None:
    only = {StageName.PROMPTS: manifests[StageName.PROMPTS]}
    address = write_report(storage, only, CONFIG, "reports/round-0001.html")
    assert address.endswith("reports/round-0001.html")
    assert storage.read("reports/round-0001.html").decode("utf-8") == render_report(storage, only, CONFIG)


@pytest.mark.parametrize("stage", [StageName.SCORES, StageName.PAIRS, StageName.TRAINING, StageName.EVALUATION])
def test_a_damaged_shard_is_named_instead_of_shown(tmp_path: Path, stage: StageName) -> None:
    storage = Storage(str(tmp_path))
    manifests = whole_round(storage, count=24)
    key = manifests[stage].shard_key(len(manifests[stage].shards) - 1)
    data = bytearray(storage.read(key))
    data[len(data) // 3] ^= 4
    storage.write(key, bytes(data))
    with pytest.raises(DamagedArtifactError, match=f"{key}: damaged"):
        render_report(storage, manifests, CONFIG)
