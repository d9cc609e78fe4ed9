"""The documents say what is so: commands exist, defaults are the defaults, the tree is the tree, links lead on."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from ospo.app import app
from ospo_core.config import RoundConfig, load_profile, profiles_dir
from ospo_core.schema import StageName

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")] if path.is_file()]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_OURS = {"runs", "build", "dist", "__pycache__"}
WRITTEN = {".py", ".md", ".yaml", ".yml", ".toml", ".j2", ".css", ".Dockerfile"}
CITATION = re.compile(r"docs/(\w+)\.md,[\s#]+(section|decision|trap)\s+(\d+(?:\.\d+)?)")
OLD_CITATION = re.compile(r"\b(?:design|method),[\s#]+(?:decision|section|trap|\d|[\"'])")
NUMBERED = {
    "section": r"^##+ (\d+(?:\.\d+)?)\.? ",
    "decision": r"^### Decision (\d+): ",
    "trap": r"^\| (\d+) \| ",
}
NAMED_FILE = re.compile(r"`((?:ospo|ospo_core|tasks|flows|deployments|docker|tests|benchmarks|docs)/[\w./-]*)`")


def console_lines(text: str) -> list[list[str]]:
    """The commands of a document's console blocks, split as a shell would, without the environment's folder."""
    blocks = [body for language, body in FENCE.findall(text) if language == "console"]
    lines = [line for body in blocks for line in body.splitlines() if line.strip()]
    return [shlex.split(line.removeprefix(".venv/bin/")) for line in lines]


def commands_named(program: str) -> list[list[str]]:
    """Arguments of every `program ...` in the console blocks of all documents."""
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    return [words[1:] for text in texts for words in console_lines(text) if words[0] == program]


def find_command(words: list[str]) -> Any:
    """Follow sub-command names from the root command; the failure names the one that does not exist."""
    command: Any = typer.main.get_command(app)  # typer's own copy of click, whose types are private
    for word in words:
        children = getattr(command, "commands", {})
        if not children:
            break
        assert word in children, f"ospo has no command {word!r}: {sorted(children)}"
        command = children[word]
    return command


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("words", commands_named("make"), ids=" ".join)
def test_make_commands_are_targets(words: list[str]) -> None:
    assert {word for word in words if "=" not in word} <= make_targets()


@pytest.mark.parametrize("words", commands_named("ospo"), ids=" ".join)
def test_ospo_commands_and_options_exist(words: list[str]) -> None:
    command = find_command([word for word in words if not word.startswith("-")])
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("words", [w for w in commands_named("ospo") if "--set" in w or "--profile" in w], ids=" ".join)
def test_ospo_examples_are_valid_configurations(words: list[str]) -> None:
    given = list(itertools.pairwise(words))
    profile = next((value for option, value in given if option == "--profile"), "shapes")
    load_profile(profile, [value for option, value in given if option == "--set"])


@pytest.mark.parametrize("row", re.findall(r"^\| `ospo ([^`]+)` \|", README, re.MULTILINE))
def test_command_table_is_the_command_line(row: str) -> None:
    names = [word for word in row.split() if word.islower()]
    assert find_command(names).name == names[-1]


def test_command_table_is_complete() -> None:
    root = typer.main.get_command(app)
    listed = set(re.findall(r"^\| `ospo ([\w-]+)", README, re.MULTILINE))
    assert listed == set(getattr(root, "commands", {}))


def test_every_profile_is_described() -> None:
    section = README.split("| profile | for |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == {
        p.stem for p in profiles_dir().glob("*.yaml")
    }


def default_of(option: str) -> object:
    """The built-in default of a dotted option; fails where there is no such option."""
    place: object = RoundConfig(name="defaults")
    for key in option.split("."):
        assert isinstance(place, BaseModel) and key in type(place).model_fields, f"no option {option}"
        place = getattr(place, key)
    return place


OPTIONS = dict(re.findall(r"^\| `([a-z][\w.]*)` \| (.+?) \| .+ \|$", README.split("| option |")[1], re.MULTILINE))


@pytest.mark.parametrize("option", OPTIONS)
def test_documented_options_exist_with_these_defaults(option: str) -> None:
    default = default_of(option)
    assert OPTIONS[option] in {f"`{default}`", "per sub-category" if isinstance(default, dict) else ""}


def test_every_section_has_documented_options() -> None:
    sections = {name for name, field in RoundConfig.model_fields.items() if name not in {"name", "seed"}}
    assert sections <= {option.split(".")[0] for option in OPTIONS}


def test_every_stage_is_in_the_table() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", README.split("## Stages")[1].split("##")[0], re.MULTILINE)
    assert listed == [stage.value for stage in StageName]


def tree() -> set[str]:
    """Folders named in the README's tree, as paths relative to the root."""
    body = README.split("## The tree")[1].split("```")[1]
    folders, parent = set(), ""
    for indent, name in re.findall(r"^( *)([\w.]+/) ", body, re.MULTILINE):
        parent = parent if indent else name
        folders.add((parent + name if indent else name).rstrip("/"))
    return folders


def test_tree_lists_every_folder() -> None:
    def is_ours(path: Path) -> bool:
        hidden = path.name.startswith(".") and path.name != ".ci"
        return path.is_dir() and not hidden and path.name not in NOT_OURS and not path.name.endswith(".egg-info")

    top = {path.name for path in ROOT.iterdir() if is_ours(path)}
    rooms = {f"ospo_core/{path.name}" for path in (ROOT / "ospo_core").iterdir() if is_ours(path)}
    assert tree() == top | rooms


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (document.parent / target).exists()] == []


def written_files() -> list[Path]:
    """Source, tests, profiles, templates, documents and build files: everything that may cite a document."""
    tops = [path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name not in NOT_OURS]
    files = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]
    return sorted(path for path in files if path.suffix in WRITTEN or path.name == "Makefile")


def found_in(pattern: re.Pattern[str]) -> list[tuple[str, re.Match[str]]]:
    """Every match in the project's own text, with its place (`file:line`); a citation may run over a line's end."""
    places = []
    for path in written_files():
        text = path.read_text(encoding="utf-8")
        for match in pattern.finditer(text):
            places.append((f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}", match))
    return places


def numbers_in(document: str, kind: str) -> list[str]:
    """The numbers of a document's sections, decisions or traps, in the order in which they stand."""
    path = ROOT / "docs" / f"{document}.md"
    text = FENCE.sub("", path.read_text(encoding="utf-8")) if path.is_file() else ""
    part = text.partition(" Traps\n")[2] if kind == "trap" else text
    return re.findall(NUMBERED[kind], part, re.MULTILINE)


@pytest.mark.parametrize(
    ("document", "kind"),
    [("method", "section"), ("method", "trap"), ("architecture", "section"), ("architecture", "decision")],
)
def test_what_can_be_cited_is_numbered_in_order(document: str, kind: str) -> None:
    numbers = numbers_in(document, kind)
    whole = [number for number in numbers if "." not in number]
    assert whole and whole == [str(number) for number in range(1, len(whole) + 1)]
    assert numbers == sorted(set(numbers), key=lambda number: [int(digits) for digits in number.split(".")])


def test_citations_resolve() -> None:
    """The number in `docs/method.md, section 3.2`, `docs/method.md, trap 3` and the like exists in that document."""
    citations = found_in(CITATION)
    assert citations
    assert [f"{place} {match[0]}" for place, match in citations if match[3] not in numbers_in(match[1], match[2])] == []


def test_citations_name_their_document() -> None:
    assert [f"{place} {match[0]}" for place, match in found_in(OLD_CITATION)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document: Path) -> None:
    """A path in backticks, e.g. `docs/method.md`, is a file or folder of the project; `<placeholders>` are not."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    assert [name for name in NAMED_FILE.findall(text) if not (ROOT / name).exists()] == []
