"""Held-out prompts: a shipped set, JSON lines, or the published formats of T2I-CompBench and GenEval.

The format is recognised by the content of a line:

- JSON lines with `prompt` and optionally `item_id`, `category`, `sub_category`, `questions`;
- GenEval's `evaluation_metadata.jsonl` (`tag`, `include`, `prompt`): questions are derived from `include`;
- plain text, one prompt per line (T2I-CompBench's `color_val.txt`): the category is the file's name without `_val`.

A file is one or the other: a JSON array, or JSON below plain text, is refused, since it would be drawn as a prompt.
Prompts without questions are decomposed by a model, see `ospo_core.stages.heldout_questions`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ospo_core.artifacts.ids import item_id
from ospo_core.config.sections import EMBEDDED, EvaluationConfig
from ospo_core.config.text_files import lines_of, local_path, read_text
from ospo_core.errors import ConfigError
from ospo_core.schema import SubCategory, category_of
from ospo_core.shapes import HELDOUT_FILE

SHIPPED = {EMBEDDED: HELDOUT_FILE, "embedded:everyday": Path(__file__).parent / "data" / "everyday.jsonl"}
"""Held-out prompts that come with the package: those of the embedded world, and 600 of everyday objects, 50 per
sub-category with their questions, composed for this project from lists of words."""

_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
_WITHOUT_CONTROLS = r"^[^\x00-\x08\x0e-\x1f\x7f]*$"
_GENEVAL_KEYS = {"tag", "include", "exclude"}


class EvalPrompt(BaseModel):
    """One held-out prompt; without `questions` it is decomposed into them by a model (docs/method.md, section 5.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str = Field(min_length=1)
    category: str = Field(min_length=1)
    sub_category: str = Field(min_length=1)
    prompt: str = Field(min_length=1, max_length=10_000, pattern=_WITHOUT_CONTROLS)
    questions: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)


def load_evaluation_prompts(config: EvaluationConfig, field: str = "evaluation.prompts") -> list[EvalPrompt]:
    """Return `config.limit` of the prompts in `config.prompts`, spread over sub-categories; errors name option `field`.

    Raises:
        ConfigError: the file is missing, empty, in no known format, or contains a prompt twice; the line is given.
    """
    remedy = f"Give {' or '.join(SHIPPED)}, a JSON-lines file, or a text file with one prompt per line"
    path = SHIPPED.get(config.prompts) or local_path(config.prompts, field)
    source = str(path)
    prompts = _parse_lines(read_text(path, field, remedy), source)
    if not prompts:
        raise ConfigError("contains no prompts", field=field, value=source, remedy="Give one prompt per line")
    seen: dict[str, int] = {}
    for number, prompt in prompts:
        if prompt.item_id in seen:
            _refuse(source, number, f"the same prompt as line {seen[prompt.item_id]}")
        seen[prompt.item_id] = number
    return spread([prompt for _, prompt in prompts], config.limit)


def spread(prompts: Iterable[EvalPrompt], limit: int) -> list[EvalPrompt]:
    """Return at most `limit` prompts, one from each sub-category in turn, in the order of the file."""
    groups: dict[str, list[EvalPrompt]] = defaultdict(list)
    for prompt in prompts:
        groups[prompt.sub_category].append(prompt)
    turns = zip_longest(*(groups[name] for name in sorted(groups)))
    return [prompt for turn in turns for prompt in turn if prompt is not None][:limit]


def _parse_lines(text: str, source: str) -> list[tuple[int, EvalPrompt]]:
    lines = [(number, line.strip()) for number, line in enumerate(lines_of(text), start=1)]
    filled = [(number, line) for number, line in lines if line]
    if filled and filled[0][1].startswith("{"):
        return [(number, _from_json(line, source, number)) for number, line in filled]
    if filled and filled[0][1].startswith("[") and filled[-1][1].endswith("]"):
        _refuse(source, filled[0][0], "a JSON array; each prompt must be an object on a line of its own")
    named = Path(source).stem.removesuffix("_val").removesuffix("_train") or "prompts"
    return [(number, _from_text(line, named, source, number)) for number, line in filled]


def _from_text(line: str, named: str, source: str, number: int) -> EvalPrompt:
    if line.startswith("{"):
        _refuse(source, number, "JSON below plain text")
    record = {"item_id": item_id("evaluation", line), "category": named, "sub_category": named, "prompt": line}
    return _checked(record, source, number)


def _from_json(line: str, source: str, number: int) -> EvalPrompt:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse(source, number, "holds half of a character, which cannot be stored")
    except (ValueError, RecursionError) as error:  # not JSON, a number of thousands of digits, nested too deep
        _refuse(source, number, f"not JSON: {getattr(error, 'msg', error)}")
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        _refuse(source, number, "`prompt` is missing or not a string")
    return _checked(record, source, number)


def _checked(record: Mapping[str, Any], source: str, number: int) -> EvalPrompt:
    try:
        return EvalPrompt.model_validate(_geneval(record) if "tag" in record else _with_defaults(record))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "include"
        _refuse(source, number, f"`{where}`: {first['msg'].removeprefix('Value error, ')}")


def _with_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the id and the categories that a line omits; the default category is `prompts`."""
    sub_category = record.get("sub_category") or record.get("category") or "prompts"
    known = sub_category in [known.value for known in SubCategory]
    category = record.get("category") or (category_of(SubCategory(sub_category)).value if known else sub_category)
    identity = record.get("item_id") or item_id("evaluation", record["prompt"])
    return {**record, "item_id": identity, "category": category, "sub_category": sub_category}


def _geneval(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a line of GenEval's metadata into our fields, with one question per object and per relation."""
    rest = {key: value for key, value in record.items() if key not in _GENEVAL_KEYS}
    questions = geneval_questions(record)
    identity = item_id("evaluation", record["prompt"])
    named = {"item_id": identity, "category": record["tag"], "sub_category": record["tag"], "questions": questions}
    return {**named, **rest}


def geneval_questions(record: Mapping[str, Any]) -> list[str]:
    """Return yes/no questions that cover a line of GenEval's metadata: one per object and per relation.

    Raises:
        ValidationError: its `include` is not one.
    """
    included = _Included.model_validate({"include": record.get("include", [])}).include
    questions = [entry.question() for entry in included]
    for entry in included:
        if entry.position is not None:
            relation, other = entry.position
            questions.append(f"Is the {entry.name} {relation} the {included[other].name}?")
    return questions


class _Object(BaseModel):
    """An object in GenEval's `include`."""

    name: str = Field(alias="class", min_length=1)
    color: str | None = None
    count: int = Field(1, strict=True, ge=0, le=1000)
    position: tuple[str, Annotated[int, Field(strict=True, ge=0)]] | None = None

    def question(self) -> str:
        """Return the question whether the object is there, as often as it should be."""
        named = " ".join(part for part in (self.color, self.name) if part)
        if self.count > 1:
            return f"Are there {_NUMBER_WORDS.get(self.count, str(self.count))} of this in the image: {named}?"
        return f"Is there {'an' if named[0] in 'aeiou' else 'a'} {named}?"


class _Included(BaseModel):
    """GenEval's `include`, whose relations name its objects by their place."""

    include: list[_Object]

    @model_validator(mode="after")
    def _relations_name_objects(self) -> _Included:
        for entry in self.include:
            if entry.position is not None and entry.position[1] >= len(self.include):
                raise ValueError(f"`position` names object {entry.position[1]}, and there are {len(self.include)}")
        return self


def _refuse(source: str, number: int, problem: str) -> NoReturn:
    raise ConfigError(
        problem,
        field="evaluation.prompts",
        value=f"{source}, line {number}",
        remedy="Give each line `prompt`, and optionally item_id, category, sub_category, questions",
    )
