"""The wheel is complete: installed beside the pinned packages, it does its work from an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ospo", "ospo_core", "tasks", "flows", "deployments")
DATA = (".yaml", ".j2", ".css", ".js", ".jsonl", ".safetensors", ".json", ".md")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, since a build leaves folders behind."""
    folder: Path = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    run([sys.executable, "-m", "pip", "-q", "wheel", *options, str(folder / "source")])
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def ospo(wheel: Path) -> Path:
    """The installed command, in an environment that sees the packages of this one, but not its sources."""
    environment = wheel.parent / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    python = environment / "bin" / "python"
    run([sys.executable, "-m", "pip", "-q", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)])
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "pinned.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return environment / "bin" / "ospo"


def run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without what this process's environment says of sources and of Prefect."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PREFECT"))}
    environment = {**kept, "COLUMNS": "140", "NO_COLOR": "1", **({"HOME": str(folder)} if folder else {})}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_every_file_that_is_not_python_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    data = {path.relative_to(ROOT).as_posix() for path in files if path.suffix in DATA}
    assert any("experiments/" in name for name in data) and any("weights/" in name for name in data)
    assert data <= names


def test_commands_find_the_shipped_files(ospo: Path, tmp_path: Path) -> None:
    assert "round" in run([str(ospo), "--help"], tmp_path).stdout
    listed = run([str(ospo), "experiments", "list"], tmp_path).stdout
    for folder in (ROOT / "deployments" / "experiments").iterdir():
        assert f"{folder.name}: " in listed
    count = len(yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"])
    assert f"{count} deployments" in run([str(ospo), "deploy", "--check"], tmp_path).stdout
    plan = run([str(ospo), "plan", "--profile", "janus-pro-7b", "--set", f"storage.root={tmp_path}/runs"], tmp_path)
    assert "deepseek-community/Janus-Pro-7B" in plan.stdout
    assert re.search(r"images\D+96.012 images", plan.stdout), plan.stdout


def test_a_smoke_round_runs_from_an_empty_folder(ospo: Path, tmp_path: Path) -> None:
    options = ["prompts.quotas={color_1: 4, spatial_2d: 4}", "evaluation.limit=8", "model.device=cpu"]
    command = [str(ospo), "round", "--profile", "smoke", *(word for one in options for word in ("--set", one))]
    shown = run(command, tmp_path).stdout
    (report,) = (tmp_path / "runs" / "smoke" / "reports").glob("*.html")
    assert report.name in shown
