"""The prompts of a benchmark, read from the files that its authors publish.

- T2I-CompBench: a folder with `color_val.txt` and so on, one prompt a line (or one such file);
- GenEval: `evaluation_metadata.jsonl`, or a folder with it;
- DPG-Bench: `dpg_bench.csv`, or a folder with it;
- anything else: held-out prompts as for `evaluation.prompts`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ospo_core.config.sections import BenchmarkConfig, EvaluationConfig
from ospo_core.errors import ConfigError
from ospo_core.evaluation.benchmarks.protocol import DPG, GENEVAL, T2I_COMPBENCH
from ospo_core.evaluation.prompts import SHIPPED, load_evaluation_prompts

_OPTION = "benchmark.prompts"
_FILES = {GENEVAL: "evaluation_metadata.jsonl", DPG: "dpg_bench.csv"}
_WHERE = {
    T2I_COMPBENCH: "Give the folder examples/dataset of Karine-Huang/T2I-CompBench, with its *_val.txt",
    GENEVAL: "Give prompts/evaluation_metadata.jsonl of djghosh13/geneval",
    DPG: "Give dpg_bench/dpg_bench.csv of TencentQQGYLab/ELLA",
}
CATEGORIES = ("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex")
"""Categories of T2I-CompBench, whose validation prompts are in `<category>_val.txt`."""
_SPATIAL, _ACTION = "complex_val_spatial.txt", "complex_val_action.txt"
"""Lists of T2I-CompBench that say which scores a complex prompt gets."""

Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wanted(_Strict):
    """What GenEval expects of the objects of one class: at least `count`, of a colour, related to an earlier entry."""

    cls: Text = Field(alias="class")
    count: int = Field(ge=1)
    color: Text | None = None
    position: tuple[Text, Annotated[int, Field(ge=0)]] | None = None


class Metadata(_Strict):
    """One line of GenEval's metadata; of the classes of `exclude` there must be fewer than `count`."""

    tag: Text
    include: tuple[Wanted, ...] = Field(min_length=1)
    exclude: tuple[Wanted, ...] = ()
    prompt: Text


class Proposition(_Strict):
    """One question of DPG-Bench's graph; `parents` are the ids of the questions on which it depends."""

    number: int = Field(ge=1)
    parents: tuple[int, ...]
    category: Text
    question: Text


class BenchmarkPrompt(BaseModel):
    """One prompt of a benchmark, with what its scorer needs.

    Args:
        item_id: unique in the benchmark.
        number: place in its file, from 0.
        metadata: GenEval's requirements.
        propositions: DPG-Bench's questions.
        questions: yes/no questions that a prompt of one's own brings.
        parts: which scores a complex prompt of T2I-CompBench gets.
        line: the line of GenEval's file, for its tools.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: Text
    number: int
    category: Text
    prompt: Text
    metadata: Metadata | None = None
    propositions: tuple[Proposition, ...] = ()
    questions: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    line: str = ""


def load_benchmark(config: BenchmarkConfig, evaluation: EvaluationConfig) -> list[BenchmarkPrompt]:
    """Return the prompts of a benchmark in the order of its files, at most `limit`, spread over the categories.

    Raises:
        ConfigError: a file is missing, empty, or has a line in another format, which is named.
    """
    if config.name not in _READERS:
        return _own(config, evaluation)
    if config.prompts is None:
        raise ConfigError("is needed for this benchmark", field=_OPTION, value=config.name, remedy=_WHERE[config.name])
    found = list(_READERS[config.name](Path(config.prompts).expanduser()))
    if not found:
        raise ConfigError("holds no prompts", field=_OPTION, value=config.prompts, remedy=_WHERE[config.name])
    seen: set[str] = set()
    for prompt in found:
        if prompt.item_id in seen:
            _refuse(config.prompts, prompt.item_id, "this prompt's id occurs twice", config.name)
        seen.add(prompt.item_id)
    return spread(found, config.limit)


def spread(prompts: Sequence[BenchmarkPrompt], limit: int | None) -> list[BenchmarkPrompt]:
    """Return at most `limit` prompts, taken from every category in turn, in their old order."""
    if limit is None or limit >= len(prompts):
        return list(prompts)
    groups: dict[str, list[BenchmarkPrompt]] = defaultdict(list)
    for prompt in prompts:
        groups[prompt.category].append(prompt)
    turns = zip_longest(*groups.values())
    kept = {prompt.item_id for prompt in [one for turn in turns for one in turn if one is not None][:limit]}
    return [prompt for prompt in prompts if prompt.item_id in kept]


def _own(config: BenchmarkConfig, evaluation: EvaluationConfig) -> list[BenchmarkPrompt]:
    """Return the held-out prompts of a file of one's own, or of the shipped set that is named."""
    section = evaluation.model_copy(update={"prompts": config.name, "limit": config.limit or 1 << 30})
    if config.name not in SHIPPED and not Path(config.name).expanduser().is_file():
        raise ConfigError(
            "is neither a benchmark nor a file of prompts",
            field="benchmark.name",
            value=config.name,
            remedy=f"Give {', '.join((*_READERS, *SHIPPED))}, or a file as for evaluation.prompts",
        )
    return [
        BenchmarkPrompt(
            item_id=prompt.item_id,
            number=number,
            category=prompt.category,
            prompt=prompt.prompt,
            questions=tuple(prompt.questions),
        )
        for number, prompt in enumerate(load_evaluation_prompts(section, field="benchmark.name"))
    ]


def _compbench(path: Path) -> Iterator[BenchmarkPrompt]:
    files = [path] if path.is_file() else [path / f"{name}_val.txt" for name in CATEGORIES]
    found = [file for file in files if file.is_file()]
    if not found:
        _refuse(str(path), f"{CATEGORIES[0]}_val.txt", "there is no such file", T2I_COMPBENCH)
    for file in found:
        category = file.stem.removesuffix("_val")
        if category not in CATEGORIES:
            _refuse(str(file), category, f"is none of the categories {', '.join(CATEGORIES)}", T2I_COMPBENCH)
        lists = {name: _listed(file.parent / name) for name in (_SPATIAL, _ACTION)} if category == "complex" else {}
        lines = [line.split("\t")[0].strip() for line in _text(file, T2I_COMPBENCH).splitlines()]
        for number, line in enumerate(line for line in lines if line):
            identity = f"{category}-{number:05d}"
            parts = _parts(line, lists) if lists else ()
            yield BenchmarkPrompt(item_id=identity, number=number, category=category, prompt=line, parts=parts)


def _listed(file: Path) -> set[str]:
    """Return the lower-case sentences of one of the lists; empty where there is no such file."""
    return {_sentence(line) for line in _text(file, T2I_COMPBENCH).splitlines()} if file.is_file() else set()


def _sentence(line: str) -> str:
    return line.split(".")[0].strip().lower()


def _parts(prompt: str, lists: dict[str, set[str]]) -> tuple[str, ...]:
    """Return which of the three scores a complex prompt gets: all of them unless a list says otherwise."""
    if _sentence(prompt) in lists[_SPATIAL]:
        return ("attribute", "spatial")
    if _sentence(prompt) in lists[_ACTION]:
        return ("attribute", "action")
    return ("attribute", "spatial", "action")


def _geneval(path: Path) -> Iterator[BenchmarkPrompt]:
    file = path / _FILES[GENEVAL] if path.is_dir() else path
    for number, line in enumerate(line for line in _text(file, GENEVAL).splitlines() if line.strip()):
        try:
            found = Metadata.model_validate_json(line)
        except ValidationError as error:
            _refuse(str(file), f"entry {number + 1}", _problem(error), GENEVAL)
        for place, entry in enumerate(found.include):
            if entry.position is not None and entry.position[1] >= place:
                _refuse(str(file), f"entry {number + 1}", "a position refers to no earlier object", GENEVAL)
        yield BenchmarkPrompt(
            item_id=f"{number:05d}",
            number=number,
            category=found.tag,
            prompt=found.prompt,
            metadata=found,
            line=json.dumps(json.loads(line)),
        )


def _dpg(path: Path) -> Iterator[BenchmarkPrompt]:
    file = path / _FILES[DPG] if path.is_dir() else path
    rows = csv.DictReader(io.StringIO(_text(file, DPG)))
    needed = {"item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language"}
    if missing := needed - set(rows.fieldnames or ()):
        _refuse(str(file), "the first line", f"columns are missing: {', '.join(sorted(missing))}", DPG)
    texts: dict[str, str] = {}
    graphs: dict[str, list[Proposition]] = defaultdict(list)
    for row in rows:
        try:
            graphs[row["item_id"]].append(_proposition(row))
        except (ValidationError, ValueError, AttributeError) as error:  # a short row has None
            problem = _problem(error) if isinstance(error, ValidationError) else str(error)
            _refuse(str(file), f"line {rows.line_num}", problem, DPG)
        texts.setdefault(row["item_id"], row["text"])
    for number, (identity, graph) in enumerate(graphs.items()):
        known = {one.number for one in graph}
        if len(known) < len(graph) or any(parent not in known for one in graph for parent in one.parents):
            _refuse(str(file), identity, "a question occurs twice, or depends on one that is not there", DPG)
        yield BenchmarkPrompt(
            item_id=identity, number=number, category="dpg", prompt=texts[identity], propositions=tuple(graph)
        )


def _proposition(row: dict[str, str]) -> Proposition:
    numbers = [int(one) for one in row["dependency"].split(",")]
    return Proposition(
        number=int(row["proposition_id"]),
        parents=tuple(one for one in numbers if one != 0),
        category=row["tuple"].split("(")[0].split("-")[0].strip(),
        question=row["question_natural_language"].strip(),
    )


def _text(file: Path, name: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
        raise ConfigError(problem, field=_OPTION, value=str(file), remedy=_WHERE[name]) from error


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"


def _refuse(file: str, place: str, problem: str, name: str) -> NoReturn:
    raise ConfigError(problem, field=_OPTION, value=f"{file}, {place}", remedy=_WHERE[name])


_READERS: dict[str, Callable[[Path], Iterator[BenchmarkPrompt]]] = {
    T2I_COMPBENCH: _compbench,
    GENEVAL: _geneval,
    DPG: _dpg,
}
