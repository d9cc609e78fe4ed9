"""The small parts of the report: numbers in words, pictures, the moving mean, which metrics get a curve."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ospo_core.errors import StageError
from ospo_core.report import formats, plots, svg
from ospo_core.report.pictures import embed, thumbnail
from tests.ospo_core.report.synthetic import picture


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert formats.duration(seconds) == said


def test_numbers_in_words() -> None:
    assert formats.percent(0.6131) == "61.3 %" and formats.percent(None) == formats.DASH
    assert formats.points(-0.0049) == f"{formats.MINUS}0.5" and formats.points(0.0) == "0.0"
    assert formats.signed(-0.0001) == "0.00" and formats.signed(None) == formats.DASH
    assert formats.whole(15000) == "15\N{NARROW NO-BREAK SPACE}000"
    assert formats.decimal(-0.5) == f"{formats.MINUS}0.50" and formats.decimal(None) == formats.DASH
    assert formats.moment("2026-01-02T03:04:05+02:00") == "2026-01-02 01:04 UTC" and formats.moment("x") == "x"


def test_reasons_are_in_words_and_the_most_frequent_is_first() -> None:
    said = formats.reasons({"near_duplicate": 2, "unparsable": 0, "duplicate": 7})
    assert said == [("duplicate", "7"), ("near duplicate", "2")]


def test_a_small_picture_keeps_its_bytes_and_its_pixels() -> None:
    small = embed(picture([("red", "circle")]), "x")
    assert small.uri.startswith("data:image/png;base64,") and small.pixelated and small.width == 64


def test_a_large_picture_is_made_smaller_and_smooth() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    large = embed(buffer.getvalue(), "x")
    assert large.uri.startswith("data:image/webp;base64,") and not large.pixelated
    assert len(large.uri) < len(buffer.getvalue())


@pytest.mark.parametrize(("side", "shown", "kind"), [(16, 160, "png"), (64, 128, "png"), (384, 160, "webp")])
def test_thumbnails_are_of_one_size_and_weigh_little(side: int, shown: int, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    small = thumbnail(buffer.getvalue(), "x")
    assert (small.width, small.height) == (shown, shown) and small.uri.startswith(f"data:image/{kind};base64,")
    assert len(small.uri) < 30_000


def test_light_colours_are_those_of_the_page() -> None:
    css = (Path(svg.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--(\w+): (#\w+);", css[: css.index("@media")]))
    assert {name: light[name] for name in svg.LIGHT} == svg.LIGHT


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(StageError, match="chosen image of a1"):
        embed(b"no picture", "chosen image of a1")


def test_the_moving_mean_is_exact_inside_and_at_the_ends() -> None:
    mean = plots.moving_mean(np.array([0.0, 3.0, 6.0, 9.0]), 3)
    assert mean.tolist() == pytest.approx([1.5, 3.0, 6.0, 7.5])


def test_metrics_that_belong_together_share_a_panel_and_the_clock_has_none() -> None:
    steps = np.array([1.0, 2.0])
    names = ("loss", "sft", "chosen_logprob", "rejected_logprob", "seconds", "collapse_alarm", "own_thing")
    panels = plots.curve_panels({name: (steps, np.zeros(2)) for name in names})
    labels = [str(panel).split('aria-label="')[1].split(":")[0] for panel in panels]
    assert labels == ["Log-probabilities, nats a token", "Loss and its parts", "own thing"]
    rang = plots.curve_panels({"collapse_alarm": (steps, np.array([0.0, 1.0]))})
    assert len(rang) == 1


def test_a_single_step_and_an_empty_group_can_be_drawn() -> None:
    one = plots.curve_panels({"loss": (np.array([1.0]), np.array([2.0]))})
    empty = plots.histogram("h", "Nothing", "S", {"none": ("#000000", [])})
    assert "<svg" in one[0] and "none, no values" in empty
