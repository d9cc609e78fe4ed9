"""The command line: quick help, and one clear message for everything that can be wrong before work begins."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from tests.support.fake_stages import NumbersStage
from tests.support.rounds import bound, finished, small_round

Run = Callable[..., tuple[int, str, str]]


def check_message(result: tuple[int, str, str], code: int, *words: str) -> None:
    """One message on standard error, without traceback, nothing on standard output."""
    assert result[0] == code
    assert result[1] == "" and "Traceback" not in result[2]
    for word in words:
        assert word in result[2]


def test_help_lists_the_commands(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    commands = (
        "round",
        "improve",
        "stage",
        "plan",
        "probe",
        "status",
        "evaluate",
        "report",
        "lineage",
        "cost",
        "shapes",
    )
    assert all(command in out for command in commands)
    code, out, _ = run("shapes", "--help")
    assert code == 0 and all(command in out for command in ("pretrain", "measure", "draw"))
    code, out, _ = run("model", "--help")
    assert code == 0 and all(command in out for command in ("check", "convert"))


def test_a_model_is_checked_and_one_that_needs_no_conversion_is_not_converted(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("model", "check", "embedded:shapes")
    assert code == 0 and "digest" in out and "16 tokens of" in out
    embedded = next(line.split()[1] for line in out.splitlines() if line.startswith("folder"))
    check_message(run("model", "convert", embedded, str(tmp_path / "out")), 1, "not in a layout that can be converted")
    check_message(run("model", "check", str(tmp_path)), 1, "no config.json")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ospo.app import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit:\n    sys.stdout.write('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "transformers", "prefect", "vllm", "polars", "matplotlib"}


def test_help_takes_well_under_a_second_of_work() -> None:
    start = os.times()
    subprocess.run([sys.executable, "-m", "ospo", "--help"], capture_output=True, check=True)
    end = os.times()
    assert end.children_user + end.children_system - start.children_user - start.children_system < 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["round", "--profil", "smoke"], ["--profil", "--profile"]),
        (["round", "--refresh", "imgs"], ["imgs", "images"]),
        (["stage", "promts"], ["promts", "prompts"]),
        (["improve", "--rounds", "0"], ["--rounds"]),
        (["round", "--profile", "smok"], ["smok", "Did you mean 'smoke'"]),
        (["round", "--set", "model.pth=x"], ["model.pth", "Did you mean 'model.path'"]),
        (["round", "--set", "training.steps=many"], ["training.steps", "integer", "'many'"]),
        (["round", "--set", "training.steps"], ["--set"]),
        (["plan", "--set", "prompts.on_unmet_quota=ignore"], ["prompts.on_unmet_quota", "ignore"]),
        (["stage", "prompts", "--refresh", "images"], ["--refresh", "images"]),
    ],
)
def test_wrong_option_is_named_with_exit_code_2(run: Run, arguments: list[str], words: list[str]) -> None:
    check_message(run(*arguments), 2, *words)


@pytest.mark.parametrize("command", ["round", "plan", "status", "report", "cost", "rounds", "gc", "evaluate", "doctor"])
def test_credentials_in_an_address_are_refused_before_anything_else(run: Run, command: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    overrides = ["--set", f"storage.scratch={scratch}", "--set", "storage.root=s3://me:hush@bucket"]
    result = run(command, *overrides)
    check_message(result, 2, "storage.root", "user name", "***@bucket")
    assert "hush" not in result[2] and not scratch.exists()


def test_a_path_that_no_terminal_shows_is_no_obstacle() -> None:
    """A name in another encoding than the terminal's is shown with escapes."""
    command = [sys.executable, "-m", "ospo", "experiments", "run", b"/nowhere/\xff"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2 and b"no such experiment" in done.stderr and b"Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_one_message(run: Run) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "ospo", "experiments", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and done.stderr.startswith(b"Error: disk full") and b"Traceback" not in done.stderr
    check_message(run("experiments", "run", "ablation", "--out", "/dev/null/x"), 2, "--out", "/dev/null/x")


def test_wrong_type_in_a_profile_names_the_field(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training:\n  steps: 2\n  learning_rate: fast\n", encoding="utf-8")
    check_message(run("plan", "--profile", str(path)), 2, "training.learning_rate", "fast")


def test_model_that_is_not_a_janus_is_refused(run: Run, profile: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    check_message(run("plan", "--profile", profile), 1, "not a Janus", "llama")
    check_message(run("status", "--profile", profile, "--set", "model.path=/nowhere"), 1, "/nowhere")


def test_plan_status_and_report_show_a_round(run: Run, profile: str, numbers: NumbersStage, tmp_path: Path) -> None:
    code, out, _ = run("plan", "--profile", profile)
    assert code == 0 and "waits" in out
    check_message(run("report", "--profile", profile), 1, "no stage of this round is cached")
    config = small_round(tmp_path)
    from ospo_core.stages.model_ref import starting_model

    ref = starting_model(config, Storage(config.storage.root))
    finished(bound(numbers, config, model=ref))
    code, out, _ = run("status", "--profile", profile)
    assert code == 0 and ref.digest[:12] in out and "none promoted yet" in out and "prompts 1" in out
    code, out, _ = run("plan", "--profile", profile, "--refresh", "prompts")
    assert code == 0 and "to be refreshed" in out
    assert sum(numbers.computed.values()) == 3


@pytest.mark.usefixtures("prefect_server")
class TestWithPrefect:
    """Commands that run a flow."""

    def test_second_run_is_cached_and_quick(self, run: Run, profile: str, numbers: NumbersStage) -> None:
        code, out, err = run("stage", "perturbations", "--profile", profile)
        assert code == 0 and "run" in out and "prompts: 2 to do" in err, err
        start = time.process_time()
        code, out, err = run("stage", "perturbations", "--profile", profile)
        assert code == 0 and "cached" in out and "perturbations: cached" in err
        assert time.process_time() - start < 5
        assert sum(numbers.computed.values()) == 3

    def test_damaged_shard_is_named_and_refresh_mends_it(
        self, run: Run, profile: str, numbers: NumbersStage, tmp_path: Path
    ) -> None:
        run("stage", "perturbations", "--profile", profile)
        shard = next((tmp_path / "store" / "prompts").rglob("part-00001-*.parquet"))
        shard.write_bytes(b"PAR1" + shard.read_bytes()[4:-4] + b"1RAP")
        broken = run("stage", "perturbations", "--profile", profile)
        assert broken[0] == 1 and shard.name in broken[2] and "--refresh" in broken[2]
        assert "Traceback" not in broken[2]
        assert run("stage", "perturbations", "--profile", profile, "--refresh", "prompts")[0] == 0

    def test_storage_that_cannot_be_written_is_refused(self, run: Run, profile: str, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("a file where the root should be", encoding="utf-8")
        check_message(run("stage", "prompts", "--profile", profile), 1, str(tmp_path / "store"))

    def test_storage_that_does_not_answer_is_refused(
        self, run: Run, profile: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        overrides = ["--set", "storage.root=s3://bucket/x", "--set", "storage.endpoint_url=http://127.0.0.1:9"]
        check_message(run("stage", "prompts", "--profile", profile, *overrides), 1, "unreachable", "127.0.0.1:9")

    def test_full_disk_is_one_message(
        self, run: Run, profile: str, numbers: NumbersStage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tasks.stage_tasks import compute_shard

        def full(spec: object) -> None:
            raise OSError(28, "No space left on device", "part-00000.parquet")

        monkeypatch.setattr(compute_shard, "retries", 0)
        numbers.trouble = full
        code, _, err = run("stage", "prompts", "--profile", profile)
        assert code == 1 and "disk full" in err and "Traceback" not in err
