"""Held-out prompts: a shipped set, JSON lines, or the published formats of T2I-CompBench and GenEval.

The format is recognised by the content of a line:

- JSON lines with `prompt` and optionally `item_id`, `category`, `sub_category`, `questions`;
- GenEval's `evaluation_metadata.jsonl` (`tag`, `include`, `prompt`): questions are derived from `include`;
- plain text, one prompt per line (T2I-CompBench's `color_val.txt`): the category is the file's name without `_val`.

Prompts without questions are decomposed by a model, see `ospo_core.stages.heldout_questions`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ospo_core.artifacts.ids import item_id
from ospo_core.config.sections import EMBEDDED, EvaluationConfig
from ospo_core.errors import ConfigError
from ospo_core.schema import SubCategory, category_of
from ospo_core.shapes import HELDOUT_FILE

SHIPPED = {EMBEDDED: HELDOUT_FILE, "embedded:everyday": Path(__file__).parent / "data" / "everyday.jsonl"}
"""Held-out prompts that come with the package: those of the embedded world, and 600 of everyday objects, 50 per
sub-category with their questions, composed for this project from lists of words."""

_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
_GENEVAL_KEYS = {"tag", "include", "exclude"}


class EvalPrompt(BaseModel):
    """One held-out prompt; without `questions` it is decomposed into them by a model (docs/method.md, section 5.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str = Field(min_length=1)
    category: str = Field(min_length=1)
    sub_category: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    questions: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)


def load_evaluation_prompts(config: EvaluationConfig, field: str = "evaluation.prompts") -> list[EvalPrompt]:
    """Return `config.limit` of the prompts in `config.prompts`, spread over sub-categories; errors name option `field`.

    Raises:
        ConfigError: the file is missing, empty, in no known format, or contains a prompt twice; the line is given.
    """
    path = SHIPPED.get(config.prompts) or Path(config.prompts).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}",
            field=field,
            value=config.prompts,
            remedy=f"Give {' or '.join(SHIPPED)}, a JSON-lines file, or a text file with one prompt per line",
        ) from error
    source = str(path)
    prompts = _parse_lines(text, source)
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
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    filled = [(number, line) for number, line in lines if line]
    if filled and filled[0][1].startswith("{"):
        return [(number, _from_json(line, source, number)) for number, line in filled]
    named = Path(source).stem.removesuffix("_val").removesuffix("_train") or "prompts"
    return [
        (number, EvalPrompt(item_id=item_id("evaluation", line), category=named, sub_category=named, prompt=line))
        for number, line in filled
    ]


def _from_json(line: str, source: str, number: int) -> EvalPrompt:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        _refuse(source, number, f"not JSON: {error.msg}")
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        _refuse(source, number, "`prompt` is missing or not a string")
    try:
        return EvalPrompt.model_validate(_geneval(record) if "tag" in record else _with_defaults(record))
    except ValidationError as error:
        first = error.errors()[0]
        _refuse(source, number, f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        _refuse(source, number, f"cannot be parsed ({type(error).__name__}: {error})")


def _with_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the id and the categories that a line omits; the default category is `prompts`."""
    sub_category = record.get("sub_category") or record.get("category") or "prompts"
    known = sub_category in {known.value for known in SubCategory}
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
    """Return yes/no questions that cover a line of GenEval's metadata: one per object and per relation."""
    included: Sequence[Mapping[str, Any]] = record.get("include", [])
    questions = [_object_question(entry) for entry in included]
    for entry in included:
        if entry.get("position") is not None:
            relation, other = entry["position"]
            questions.append(f"Is the {entry['class']} {relation} the {included[other]['class']}?")
    return questions


def _object_question(entry: Mapping[str, Any]) -> str:
    name = " ".join(part for part in (entry.get("color"), entry["class"]) if part)
    count = entry.get("count", 1)
    if count > 1:
        return f"Are there {_NUMBER_WORDS.get(count, str(count))} of this in the image: {name}?"
    return f"Is there {'an' if name[0] in 'aeiou' else 'a'} {name}?"


def _refuse(source: str, number: int, problem: str) -> NoReturn:
    raise ConfigError(
        problem,
        field="evaluation.prompts",
        value=f"{source}, line {number}",
        remedy="Give each line `prompt`, and optionally item_id, category, sub_category, questions",
    )
