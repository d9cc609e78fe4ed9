"""The folders that the benchmarks' own tools read: names, metadata, grids."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ospo_core.evaluation.benchmarks.layouts import grid, write_layout
from ospo_core.evaluation.benchmarks.prompts import BenchmarkPrompt


def png(color: str, size: int = 4) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, format="PNG")
    return buffer.getvalue()


def prompt(item: str, category: str = "color", text: str = "a red cat", number: int = 0) -> BenchmarkPrompt:
    return BenchmarkPrompt(item_id=item, number=number, category=category, prompt=text, line='{"tag": "x"}')


def rows(*items: str, samples: int = 2) -> list[dict[str, Any]]:
    return [{"item_id": item, "sample": n, "image": {"bytes": png("red")}} for item in items for n in range(samples)]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_compbench_counts_the_pictures_of_a_category(tmp_path: Path) -> None:
    prompts = [prompt("a"), prompt("b", text="a dog"), prompt("c", "shape", "a box")]
    assert write_layout(tmp_path, "t2i-compbench", prompts, rows("a", "b", "c")) == []
    assert files(tmp_path) == [
        "color/samples/a dog_000002.png",
        "color/samples/a dog_000003.png",
        "color/samples/a red cat_000000.png",
        "color/samples/a red cat_000001.png",
        "shape/samples/a box_000000.png",
        "shape/samples/a box_000001.png",
    ]


def test_prompts_that_are_no_file_names_are_left_out_and_named(tmp_path: Path) -> None:
    prompts = [prompt("a", text="a cat/dog"), prompt("b", text="x" * 250), prompt("c", text="a_b"), prompt("d")]
    assert write_layout(tmp_path, "t2i-compbench", prompts, rows("a", "b", "c", "d")) == ["a", "b", "c"]
    assert files(tmp_path)[0] == "color/samples/a red cat_000006.png", "the others keep their numbers"


def test_geneval_has_a_folder_per_line(tmp_path: Path) -> None:
    write_layout(tmp_path, "geneval", [prompt("00007", number=7)], rows("00007"))
    assert files(tmp_path) == ["00007/metadata.jsonl", "00007/samples/0000.png", "00007/samples/0001.png"]
    assert (tmp_path / "00007" / "metadata.jsonl").read_text(encoding="utf-8") == '{"tag": "x"}'


def test_dpg_has_a_grid_per_prompt_in_reading_order(tmp_path: Path) -> None:
    write_layout(tmp_path, "dpg", [prompt("p.1"), prompt("../p")], rows("p.1", "../p", samples=4))
    assert files(tmp_path) == ["p.1.png"]
    whole = Image.open(BytesIO(grid([png(color) for color in ("red", "lime", "blue", "white")])))
    corners = [whole.getpixel(place) for place in ((0, 0), (7, 0), (0, 7), (7, 7))]
    assert whole.size == (8, 8) and corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert grid([png("red")]) == png("red")
