"""Prefect's embedded server: settings that a user's own win over, and a server that never outlives its owner."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flows.prefect_server import check_answers, configure_prefect
from ospo_core.errors import ConfigError, OspoError

_OWNER = """
import subprocess, sys, time
from flows.prefect_server import _watcher_of
child = subprocess.Popen(["sleep", "600"])
watcher = _watcher_of(child.pid)
sys.stdout.write(f"{child.pid}\\n")
sys.stdout.flush()
time.sleep(600)
"""


@pytest.fixture
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [name for name in os.environ if name.startswith("PREFECT") or name == "DO_NOT_TRACK"]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_own_home_and_long_timeouts_are_set(empty_environment: Path) -> None:
    configure_prefect(empty_environment / "scratch")
    home = empty_environment / ".ospo" / "prefect"
    assert os.environ["PREFECT_HOME"] == str(home) and home.is_dir()
    assert os.environ["PREFECT_RESULTS_LOCAL_STORAGE_PATH"].startswith(str(home))
    assert os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "120"
    assert os.environ["DO_NOT_TRACK"] == "1" and os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "CRITICAL"


def test_settings_of_the_user_stay(empty_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_environment / ".prefect").mkdir()
    (empty_environment / ".prefect" / "profiles.toml").write_text("active = 'mine'\n", encoding="utf-8")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_TIMEOUT", "5")
    configure_prefect(empty_environment / "scratch", verbose=True)
    assert "PREFECT_HOME" not in os.environ
    assert os.environ["PREFECT_SERVER_DATABASE_TIMEOUT"] == "5"
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in os.environ


def test_home_that_cannot_be_written_is_replaced_by_the_scratch_folder(empty_environment: Path) -> None:
    (empty_environment / ".ospo").write_text("a file where a folder should be", encoding="utf-8")
    configure_prefect(empty_environment / "scratch")
    assert os.environ["PREFECT_HOME"] == str(empty_environment / "scratch" / "prefect")


@pytest.mark.parametrize("address", ["http://[::1", "http://host:99999/api", "http://me:hush@host:port"])
def test_what_is_no_address_is_named(empty_environment: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    with pytest.raises(ConfigError, match=r"^PREFECT_API_URL: is not an address") as caught:
        configure_prefect(empty_environment / "scratch")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://a\tb", "nonsense", "ftp://host", "http://me:hush@127.0.0.1:9/api"])
def test_a_server_that_cannot_answer_is_named(address: str) -> None:
    with pytest.raises(OspoError, match=r"^PREFECT_API_URL: the Prefect server does not answer: .*Start it") as caught:
        check_answers(address, "Start it")
    assert "hush" not in str(caught.value)


def test_server_ends_when_its_owner_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    assert is_running(child)
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is not merely waiting to be collected."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


_FLOW = """
import sys
from pathlib import Path
from flows.prefect_server import configure_prefect, start_server
configure_prefect(Path(sys.argv[1]))
start_server()
from prefect import flow
from prefect.settings import get_current_settings
@flow
def address() -> str:
    return get_current_settings().api.url
sys.stdout.write(address() + "\\n")
sys.stdout.write(str("prefect.server.api.server" in sys.modules))
"""


def test_embedded_server_serves_a_flow_and_ends_with_its_process(empty_environment: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(empty_environment / "home")}
    done = subprocess.run(
        [sys.executable, "-c", _FLOW, str(empty_environment)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    address, server_was_imported = done.stdout.splitlines()[-2:]
    assert server_was_imported == "False"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health", timeout=10)
