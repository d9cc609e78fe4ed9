"""Every format of held-out prompts is read, and a wrong line is named."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ospo_core.config.sections import EvaluationConfig
from ospo_core.errors import ConfigError
from ospo_core.evaluation.prompts import EvalPrompt, load_evaluation_prompts
from ospo_core.prompts.filters import number_above_four
from ospo_core.schema import SubCategory, category_of


def written(path: Path, lines: list[Any], limit: int = 300) -> EvaluationConfig:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return EvaluationConfig(prompts=str(path), limit=limit)


def test_json_lines_keep_what_they_say(tmp_path: Path) -> None:
    line = {
        "item_id": "a1",
        "category": "layout",
        "sub_category": "spatial_2d",
        "prompt": "a cup on a box",
        "questions": ["is there a cup ?"],
    }
    assert load_evaluation_prompts(written(tmp_path / "p.jsonl", [line])) == [EvalPrompt(**line)]


def test_missing_fields_are_filled_and_ids_are_stable(tmp_path: Path) -> None:
    config = written(tmp_path / "p.jsonl", [{"prompt": "x", "sub_category": "color_1"}, {"prompt": "y"}])
    first, second = sorted(load_evaluation_prompts(config), key=lambda prompt: prompt.prompt)
    assert (first.category, first.sub_category) == ("attribute", "color_1")
    assert (second.category, second.sub_category, second.questions) == ("prompts", "prompts", [])
    assert load_evaluation_prompts(config) == load_evaluation_prompts(config)
    assert first.item_id != second.item_id


def test_plain_text_as_in_t2i_compbench(tmp_path: Path) -> None:
    config = written(tmp_path / "color_val.txt", ["a green bench", "", "  a blue bowl  "])
    prompts = load_evaluation_prompts(config)
    assert [(prompt.category, prompt.prompt) for prompt in prompts] == [
        ("color", "a green bench"),
        ("color", "a blue bowl"),
    ]


def test_geneval_metadata_gives_questions(tmp_path: Path) -> None:
    lines = [
        {
            "tag": "position",
            "include": [{"class": "dog", "count": 1}, {"class": "apple", "count": 1, "position": ["left of", 0]}],
            "prompt": "a photo of an apple left of a dog",
        },
        {"tag": "counting", "include": [{"class": "cup", "count": 3}], "exclude": [], "prompt": "three cups"},
        {"tag": "colors", "include": [{"class": "bus", "count": 1, "color": "red"}], "prompt": "a red bus"},
    ]
    prompts = {prompt.category: prompt for prompt in load_evaluation_prompts(written(tmp_path / "g.jsonl", lines))}
    assert prompts["position"].questions == ["Is there a dog?", "Is there an apple?", "Is the apple left of the dog?"]
    assert prompts["counting"].questions == ["Are there three of this in the image: cup?"]
    assert prompts["colors"].questions == ["Is there a red bus?"]


def test_the_limit_takes_evenly_from_sub_categories(tmp_path: Path) -> None:
    lines = [{"prompt": f"{name} {i}", "category": name} for name in "abc" for i in range(9 if name == "a" else 2)]
    prompts = load_evaluation_prompts(written(tmp_path / "p.jsonl", lines, limit=7))
    assert [prompt.prompt for prompt in prompts] == ["a 0", "b 0", "c 0", "a 1", "b 1", "c 1", "a 2"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"prompt": "a"}', '{"prompt": '], "line 2"),
        (['{"text": "a"}'], "`prompt` is missing or not a string"),
        (['{"prompt": "a", "colour": "red"}'], "colour"),
        (['{"prompt": "a"}', '{"prompt": "a"}'], "the same prompt as line 1"),
        (['{"prompt": "a", "tag": "x", "include": [{"count": 1}]}'], "line 1"),
        (["", "  "], "contains no prompts"),
        (['[{"prompt": "a"}]'], "line 1.*a JSON array|a JSON array.*line 1"),
        (["[", '{"prompt": "a"}', "]"], "a JSON array"),
        (["a cup", '{"prompt": "a"}'], "JSON below plain text .*line 2"),
        (['{"prompt": "\\ud800"}'], "half of a character.*line 1"),
        (['{"prompt": "a", "questions": ["\\udfff?"]}'], "half of a character.*line 1"),
        (['{"prompt": "a", "x": ' + "[" * 100_000], "not JSON: .*line 1"),
        (['{"prompt": ' + "9" * 5000 + "}"], "not JSON: .*line 1"),
        (['{"prompt": NaN}'], "`prompt` is missing or not a string"),
        (['{"prompt": "\\u0000"}'], "`prompt`"),
        (["a\x00b"], "`prompt`"),
        (["a" * 20_000], "`prompt`: .*10000 characters"),
        (['{"prompt": "a", "sub_category": ["x"]}'], "`category`"),
        (['{"prompt": "a", "item_id": 3}'], "`item_id`"),
        (['{"prompt": "a", "tag": "x", "include": {}}'], "`include`"),
        (['{"prompt": "a", "tag": "x", "include": [{"class": "c", "count": 1e999}]}'], "`include.0.count`"),
        (['{"prompt": "a", "tag": "x", "include": [{"class": "c", "count": "3"}]}'], "`include.0.count`"),
        (['{"prompt": "a", "tag": "x", "include": [{"class": ""}]}'], "`include.0.class`"),
        (
            ['{"prompt": "a", "tag": "x", "include": [{"class": "c", "position": ["on", 1]}]}'],
            "names object 1, and there",
        ),
        (
            ['{"prompt": "a", "tag": "x", "include": [{"class": "c", "position": ["on", -1]}]}'],
            "`include.0.position.1`",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_evaluation_prompts(written(tmp_path / "p.jsonl", lines))


def test_a_byte_order_mark_and_unusual_ends_of_lines_are_no_prompts(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes('\ufeff{"prompt": "a\u2028b"}\r\n{"prompt": "c"}\r'.encode())
    config = EvaluationConfig(prompts=str(path))
    assert [prompt.prompt for prompt in load_evaluation_prompts(config)] == ["a\u2028b", "c"]
    path.write_bytes("\ufeffa\u2028b\r\n[a] c\r".encode())
    assert [prompt.prompt for prompt in load_evaluation_prompts(config)] == ["a\u2028b", "[a] c"]


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 300, "a\0b", "/dev/zero", "/tmp"])
def test_what_can_be_no_file_is_one_message(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.prompts: "):
        load_evaluation_prompts(EvaluationConfig(prompts=name))


def test_a_missing_or_binary_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_evaluation_prompts(EvaluationConfig(prompts=str(tmp_path / "none.jsonl")))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_evaluation_prompts(EvaluationConfig(prompts=str(tmp_path / "picture.png")))


def test_the_shipped_everyday_prompts_are_balanced_and_asked_about() -> None:
    prompts = load_evaluation_prompts(EvaluationConfig(prompts="embedded:everyday", limit=1000))
    counts = Counter(prompt.sub_category for prompt in prompts)
    assert counts == dict.fromkeys((name.value for name in SubCategory), 50)
    for prompt in prompts:
        assert prompt.category == category_of(SubCategory(prompt.sub_category)).value
        assert prompt.questions and len(set(prompt.questions)) == len(prompt.questions)
        assert all(question[0].isupper() and question.endswith("?") for question in prompt.questions)
        assert not number_above_four(prompt.prompt)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", " ".join([prompt.prompt, *prompt.questions]))
