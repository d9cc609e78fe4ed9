"""Floors are those of pyproject.toml, and a library below its floor is refused before anything is read."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ospo_core.errors import ModelError
from ospo_core.models import libraries
from ospo_core.models.libraries import FLOORS, check_libraries
from ospo_core.models.locate import check_folder

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_floors_are_those_that_the_package_declares() -> None:
    declared = map(Requirement, tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"])
    known = {one.name: next(part.version for part in one.specifier if part.operator == ">=") for one in declared}
    assert {name: known.get(name) for name in FLOORS} == FLOORS


def test_what_is_installed_here_is_new_enough() -> None:
    check_libraries()


def test_a_library_that_is_too_old_or_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: floor for name, floor in FLOORS.items()}
    monkeypatch.setattr(libraries, "version", lambda name: found[name])
    check_libraries()
    found["transformers"] = "4.57.3"
    with pytest.raises(ModelError, match=r"transformers: too old .*got '4\.57\.3'.*pip install 'transformers>=5\.0'"):
        check_folder(tmp_path)

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(libraries, "version", missing)
    with pytest.raises(ModelError, match="torch: not installed"):
        check_libraries()
