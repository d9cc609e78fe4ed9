"""The shape of the source tree: who imports whom, and what may not appear anywhere. Read with `ast`, nothing is run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {"ospo_core": 0, "tasks": 1, "flows": 2, "deployments": 3, "ospo": 3}
SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FOUNDATION = {"errors", "schema"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "schema": {"errors"},
    "config": FOUNDATION,
    "artifacts": FOUNDATION,
    "engines": FOUNDATION | {"config"},
    "prompts": FOUNDATION | {"config", "artifacts", "engines"},
    "selection": FOUNDATION | {"config", "artifacts"},
    "models": FOUNDATION | {"config", "artifacts", "prompts"},
    "shapes": FOUNDATION | {"config", "artifacts", "prompts", "models"},
    "training": FOUNDATION | {"config", "artifacts", "prompts", "models"},
    "evaluation": FOUNDATION | {"config", "artifacts", "prompts", "engines", "selection", "models", "shapes"},
    "report": FOUNDATION | {"config", "artifacts", "prompts"},
    "sharing": FOUNDATION | {"config", "artifacts", "prompts", "models", "report"},
}
"""Each room of ospo_core and the rooms it may import; `stages` may import all of them, and `rounds` the stages too.

`browsing` reads what all of them wrote.
"""
ROOMS["stages"] = set(ROOMS)
ROOMS["rounds"] = set(ROOMS)
ROOMS["browsing"] = set(ROOMS)

TORCH_ROOMS = {"models", "training", "evaluation", "shapes"}
HEAVY = {"torch", "transformers", "peft", "safetensors"}
LIGHT_FILES = ("__init__.py", "base.py")  # of engines: what is imported before an engine is chosen
LIGHT_MODULES = [*(f"ospo_core.{room}" for room in ROOMS if room not in TORCH_ROOMS), "ospo"]
NOT_WRITTEN = {".venv", ".git", ".ospo", "runs", "build", "dist"}
PRAGMA = re.compile(r"#\s*(?:noqa(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[^\]]*\])?|pragma: no cover)(?P<rest>.*)")
MACHINE_PATH = re.compile(r"(?<![\w.$}~])/(?:" + "|".join(("root", "work", "home(?!/ospo)")) + r")/\w")


@dataclass(frozen=True)
class Import:
    """One imported module, and whether the import runs as soon as its file is imported."""

    path: Path
    line: int
    module: str
    eager: bool

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"

    @property
    def root(self) -> str:
        return self.module.split(".")[0]


def room_of(path: Path) -> str:
    """The room of ospo_core that a file belongs to; the package's own `__init__` counts as `errors`."""
    part = path.relative_to(ROOT / "ospo_core").parts[0].removesuffix(".py")
    return "errors" if part == "__init__" else part  # the package itself imports as little as its errors


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(path: Path, node: ast.AST, eager: bool) -> list[Import]:
    """What one statement imports: `from a import b` may import module a.b, so it gives a.b."""
    if isinstance(node, ast.Import):
        return [Import(path, node.lineno, alias.name, eager) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return [Import(path, node.lineno, f"{node.module}.{alias.name}", eager) for alias in node.names]
    return []


def walk_imports(path: Path, node: ast.AST, eager: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        yield from imports_of(path, child, eager)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk_imports(path, child, eager and not function and not is_type_checking(child))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


IMPORTS = [found for path in SOURCES for found in walk_imports(path, parsed(path), eager=True)]
CORE_IMPORTS = [found for found in IMPORTS if found.path.is_relative_to(ROOT / "ospo_core")]


def test_layers_import_only_downwards() -> None:
    upward = [
        found.where for found in IMPORTS if LAYERS.get(found.root, -1) > LAYERS[found.path.relative_to(ROOT).parts[0]]
    ]
    assert upward == []


def test_source_never_imports_tests_or_relatively() -> None:
    relative = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert [found.where for found in IMPORTS if found.root == "tests"] + relative == []


def test_rooms_import_only_the_rooms_of_the_table() -> None:
    crossings = []
    for found in CORE_IMPORTS:
        parts = [*found.module.split("."), ""]
        room = room_of(found.path)
        if parts[0] == "ospo_core" and parts[1] not in {room, ""} | ROOMS[room]:
            crossings.append(found.where)
    assert crossings == []


def test_every_room_is_in_the_table_and_the_table_has_no_cycle() -> None:
    folders = {path.parent.name for path in (ROOT / "ospo_core").glob("*/__init__.py")}
    assert folders <= set(ROOMS)
    graph = {room: allowed - {room} for room, allowed in ROOMS.items()}
    assert set(TopologicalSorter(graph).static_order()) == set(ROOMS)


def test_core_does_not_know_prefect() -> None:
    assert [found.where for found in CORE_IMPORTS if found.root.startswith("prefect")] == []


def test_torch_is_imported_at_module_level_only_by_the_rooms_that_compute() -> None:
    outside = [
        found.where
        for found in IMPORTS
        if found.eager
        and found.root in HEAVY
        and not (found in CORE_IMPORTS and room_of(found.path) in TORCH_ROOMS)
        and not (found.path.parent.name == "engines" and found.path.name not in LIGHT_FILES)
    ]
    assert outside == []


def test_only_its_own_folder_names_a_model_family() -> None:
    """Neither imports nor names of classes; prompt templates and the pretraining of the embedded model may."""
    core = ROOT / "ospo_core"
    allowed = [core / "models" / "janus", core / "prompts", core / "shapes"]
    found = []
    for path in SOURCES:
        if any(path.is_relative_to(folder) for folder in allowed):
            continue
        for node in ast.walk(parsed(path)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                modules.append(node.module or "")
            names = [*modules, getattr(node, "id", ""), getattr(node, "attr", "")]
            found += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in names if "janus" in name.lower()]
    assert found == []


def test_vllm_is_imported_only_by_its_engine() -> None:
    engine = ROOT / "ospo_core" / "engines" / "vllm_engine.py"
    assert [found.where for found in IMPORTS if found.root == "vllm" and found.path != engine] == []


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & {"torch", "transformers", "vllm", "prefect"} == set()


def test_nothing_prints() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "breakpoint"}
    ]
    assert calls == []


def test_broad_excepts_say_why() -> None:
    silent = []
    for path in SOURCES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            if broad and "#" not in lines[node.lineno - 1]:
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert silent == []


def test_suppressed_checks_give_their_reason() -> None:
    bare = []
    for path in [*SOURCES, *TESTS]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            match = PRAGMA.search(line)
            if match and path != Path(__file__) and len(match["rest"].strip(" #-:")) < 8:
                bare.append(f"{path.relative_to(ROOT)}:{number} {line.strip()}")
    assert bare == []


def project_texts() -> Iterator[tuple[Path, int, str]]:
    """Every line of the project that a person wrote: source, tests, profiles, documents, build files."""
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".j2", ".sh", ".Dockerfile", ".css"}
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in NOT_WRITTEN]
    files = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    for path in sorted(path for path in files if path.is_file()):
        if path.suffix in kinds or path.parent.name == ".ci" or path.name == "Makefile":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                yield path.relative_to(ROOT), number, line


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [f"{path}:{number} {line.strip()}" for path, number, line in project_texts() if MACHINE_PATH.search(line)]
    assert found == []
