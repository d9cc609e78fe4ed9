"""Prompts of the benchmarks: their published formats, and one message for every file that is not in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ospo_core.config.sections import BenchmarkConfig, EvaluationConfig
from ospo_core.errors import ConfigError
from ospo_core.evaluation.benchmarks import compbench
from ospo_core.evaluation.benchmarks.prompts import CATEGORIES, BenchmarkPrompt, load_benchmark

DPG_HEAD = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)
DPG_ROWS = [
    'p1,"A dog, and a cat.",,1,0,entity,whole,entity - whole (dog),Is there a dog?',
    'p1,"A dog, and a cat.",,2,1,attribute,color,attribute - color (dog; red),Is the dog red?',
    'p1,"A dog, and a cat.",,3,"1,2",relation,spatial,relation - spatial (dog; cat; on),Is it on the cat?',
    "p2,One bowl.,,1,0,entity,whole,entity - whole (bowl),Is there a bowl?",
]


def load(name: str, prompts: Path | None, limit: int | None = None) -> list[BenchmarkPrompt]:
    config = BenchmarkConfig(name=name, prompts=None if prompts is None else str(prompts), limit=limit)
    return load_benchmark(config, EvaluationConfig())


def test_compbench_reads_a_file_per_category(tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a green bench and a blue bowl\n\na red cat\n", encoding="utf-8")
    (tmp_path / "complex_val.txt").write_text("The red hat was on top of it.\nIt sat.\nIt was red.", encoding="utf-8")
    (tmp_path / "complex_val_spatial.txt").write_text("The red hat was on top of it.\n", encoding="utf-8")
    (tmp_path / "complex_val_action.txt").write_text("it sat.\n", encoding="utf-8")
    found = load("t2i-compbench", tmp_path)
    assert [(one.item_id, one.category) for one in found[:2]] == [("color-00000", "color"), ("color-00001", "color")]
    assert [one.parts for one in found[2:]] == [
        ("attribute", "spatial"),
        ("attribute", "action"),
        ("attribute", "spatial", "action"),
    ]
    assert [one.prompt for one in load("t2i-compbench", tmp_path / "color_val.txt")] == [
        one.prompt for one in found[:2]
    ]
    assert [one.item_id for one in load("t2i-compbench", tmp_path, 3)] == [
        "color-00000",
        "color-00001",
        "complex-00000",
    ]


def test_geneval_keeps_the_line_for_its_tools(tmp_path: Path) -> None:
    line = {"tag": "position", "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1}], "prompt": "p"}
    line["include"][1]["position"] = ["left of", 0]  # type: ignore[index]  # a line as it is published
    (tmp_path / "evaluation_metadata.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (found,) = load("geneval", tmp_path)
    assert json.loads(found.line) == line and found.category == "position" and found.metadata is not None
    assert found.metadata.include[1].position == ("left of", 0)


def test_dpg_gathers_the_questions_of_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "dpg_bench.csv").write_text("\n".join([DPG_HEAD, *DPG_ROWS]), encoding="utf-8")
    first, second = load("dpg", tmp_path)
    assert (first.item_id, first.prompt, second.item_id) == ("p1", "A dog, and a cat.", "p2")
    assert [(one.number, one.parents, one.category) for one in first.propositions] == [
        (1, (), "entity"),
        (2, (1,), "attribute"),
        (3, (1, 2), "relation"),
    ]


def test_own_prompts_are_those_of_an_evaluation(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a red circle", "questions": ["is there a red circle ?"]}\n{"prompt": "b"}', "utf-8")
    found = load(str(file), None)
    assert [one.questions for one in found] == [("is there a red circle ?",), ()] and found[0].category == "prompts"
    assert len(load(str(file), None, limit=1)) == 1 and len(load("embedded:shapes", None)) > 300


GENEVAL_LINE = '{"tag": "t", "include": [{"class": "cat", "count": 1}], "prompt": "p"}'
BAD = {
    "no path": ("geneval", None, "is needed for this benchmark"),
    "no file": ("geneval", {}, "cannot be read"),
    "empty": ("geneval", {"evaluation_metadata.jsonl": "\n"}, "holds no prompts"),
    "not JSON": ("geneval", {"evaluation_metadata.jsonl": "cat"}, "entry 1"),
    "a key too many": ("geneval", {"evaluation_metadata.jsonl": GENEVAL_LINE.replace("tag", "tags")}, "`tag`"),
    "no count": ("geneval", {"evaluation_metadata.jsonl": GENEVAL_LINE.replace(": 1", ": 0")}, "include.0.count"),
    "a position of nothing": (
        "geneval",
        {"evaluation_metadata.jsonl": GENEVAL_LINE.replace('"count"', '"position": ["above", 0], "count"')},
        "refers to no earlier object",
    ),
    "no category": ("t2i-compbench", {"colour_val.txt": "a"}, "there is no such file"),
    "not text": ("t2i-compbench", {"color_val.txt": b"\xff\xfe\x00"}, "not UTF-8 text"),
    "no columns": ("dpg", {"dpg_bench.csv": "item_id,text\np1,a"}, "columns are missing: dependency"),
    "a short row": ("dpg", {"dpg_bench.csv": f"{DPG_HEAD}\np1,text"}, "line 2"),
    "no number": ("dpg", {"dpg_bench.csv": f"{DPG_HEAD}\n{DPG_ROWS[0].replace(',1,0', ',one,0')}"}, "line 2"),
    "an unknown parent": ("dpg", {"dpg_bench.csv": f"{DPG_HEAD}\n{DPG_ROWS[1]}"}, "depends on one that is not there"),
    "a question twice": ("dpg", {"dpg_bench.csv": f"{DPG_HEAD}\n{DPG_ROWS[0]}\n{DPG_ROWS[0]}"}, "occurs twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_are_refused_with_their_place(tmp_path: Path, case: str) -> None:
    name, files, said = BAD[case]
    for file, content in (files or {}).items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"^benchmark\.prompts: ") as refused:
        load(name, None if files is None else tmp_path)
    assert said in str(refused.value) and refused.value.remedy


@pytest.mark.parametrize("name", ["none.jsonl", "GenEval", ""])
def test_a_name_that_is_nothing_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^benchmark\.name: is neither .* Give t2i-compbench, geneval, dpg, embedded:"
    ):
        load(str(tmp_path / name), None)


def test_own_prompts_in_no_format_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.jsonl, line 2"):
        load(str(tmp_path / "mine.jsonl"), None)


PUBLISHED = os.environ.get("OSPO_BENCHMARK_PROMPTS", "")


@pytest.mark.skipif(not PUBLISHED, reason="OSPO_BENCHMARK_PROMPTS names no folder with the published prompts")
def test_published_prompts_are_read_and_understood() -> None:
    geneval, pictures = (
        load("geneval", Path(PUBLISHED) / "geneval"),
        load("t2i-compbench", Path(PUBLISHED) / "t2i_compbench"),
    )
    assert len(geneval) == 553 and {one.category for one in pictures} == set(CATEGORIES) and len(pictures) == 2400
    readers = {
        "spatial": compbench.spatial_relation,
        "3d_spatial": compbench.depth_relation,
        "numeracy": compbench.counts_of,
        **dict.fromkeys(("color", "shape", "texture", "complex"), compbench.noun_phrases),
    }
    unread = [one.prompt for one in pictures if one.category in readers and not readers[one.category](one.prompt)]
    assert unread == []
