"""Prefect's embedded server: settings, start and stop.

A user's own server (PREFECT_API_URL, or a Prefect profile) is used as it is. Prefect could start an embedded server
itself, but would start it in the terminal's process group, where Ctrl-C ends it before its clients.
"""

from __future__ import annotations

import atexit
import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flows import server_process
from ospo_core.errors import ConfigError, OspoError

if TYPE_CHECKING:
    from prefect.settings import Settings

_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
_ALWAYS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
}
_ADDRESS = "Give one such as http://127.0.0.1:4200/api, or unset the variable to use an embedded server"
_HOST = "127.0.0.1"
_SERVER = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
_SETTINGS = ExitStack()
"""Prefect settings of this process, valid until it ends."""
_WATCH = 'read -r _; kill "$1" 2>/dev/null'
"""Shell script: ends the given process when its standard input closes, because the owner of the pipe has ended."""
_starting = threading.Lock()
_closed = False
"""Whether this process ends, so that no server is started any more."""
_running: list[subprocess.Popen[bytes]] = []
"""The embedded server of this process and the shell that watches it, while they run."""


def configure_prefect(scratch: Path, verbose: bool = False) -> None:
    """Set the environment variables that Prefect reads when it is imported; those already set are kept.

    Args:
        scratch: folder for Prefect's files if the home folder is not writable.
        verbose: show Prefect's logs in the terminal.

    Raises:
        ConfigError: PREFECT_API_URL is not an address.
    """
    address = os.environ.get("PREFECT_API_URL", "")
    try:
        _ = urlsplit(address).port
    except ValueError as error:
        raise ConfigError(
            f"is not an address: {error}", field="PREFECT_API_URL", value=address, remedy=_ADDRESS
        ) from None
    set_defaults(verbose)
    if "PREFECT_HOME" not in os.environ and not (Path.home() / ".prefect" / "profiles.toml").is_file():
        os.environ["PREFECT_HOME"] = str(_own_home(scratch))
    home = os.environ.get("PREFECT_HOME")
    if home:
        os.environ.setdefault("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(Path(home) / "storage"))
        os.environ.setdefault("PREFECT_SERVER_MEMO_STORE_PATH", str(Path(home) / "memo_store.toml"))


def set_defaults(verbose: bool = False) -> None:
    """Set timeouts and, unless `verbose`, quiet logs; variables already set are kept."""
    for name, value in {**_ALWAYS, **({} if verbose else _QUIET)}.items():
        os.environ.setdefault(name, value)


def start_server(meanwhile: Callable[[], None] = lambda: None) -> None:
    """Start the embedded server if the user has none.

    Args:
        meanwhile: imports what is needed next, while the server starts; here and not in a thread, since an ending
            process must find no import half done.

    It never outlives this process: `stop` ends it at exit, and a shell that waits on a pipe ends it after a kill.

    Raises:
        ConfigError: a setting of Prefect cannot be used.
        OspoError: the user's server does not answer, or the embedded one does not start.
    """
    settings = prefect_settings()
    if settings.api.url:
        check_answers(settings.api.url, "Start it, or unset the variable to use an embedded server")
        return
    with _starting:
        if _closed:
            raise KeyboardInterrupt
        process, address = _launch(settings.to_environment_variables(exclude_unset=True))
    importlib.import_module("flows.round")  # needed next; the server takes longer to start than this to import
    meanwhile()
    _wait_for(process, address)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    _SETTINGS.enter_context(temporary_settings({PREFECT_API_URL: address}))


def prefect_settings() -> Settings:
    """Return Prefect's settings: environment variables over the user's profile.

    Raises:
        ConfigError: one of them cannot be used.
    """
    from pydantic import ValidationError

    try:
        from prefect.settings import get_current_settings

        return get_current_settings()
    except ValidationError as error:
        found = error.errors()[0]
        name = ".".join(str(part) for part in found["loc"])
        remedy = "Correct the variables that begin with PREFECT_, or Prefect's profile"
        raise ConfigError(f"{found['msg']}", field=f"Prefect's setting {name}".strip(), remedy=remedy) from None


def check_answers(address: str, remedy: str) -> None:
    """Ask the server at `address` whether it is well.

    Raises:
        OspoError: it does not answer.
    """
    import httpx

    try:
        httpx.get(f"{address}/health", timeout=10).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"the Prefect server does not answer: {error}"
        raise OspoError(problem, field="PREFECT_API_URL", value=address, remedy=remedy) from error


@atexit.register  # before Prefect is imported, so that it runs after Prefect's exit handlers, which use the server
def stop(patience: float = 5.0) -> None:
    """End the embedded server of this process, if there is one, and its watcher; kill it after `patience` seconds."""
    while _running:
        process = _running.pop(0)
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def close(patience: float) -> None:
    """Stop the embedded server for good: another thread that is about to start one, does not."""
    global _closed
    _closed = True
    taken = _starting.acquire(timeout=patience)
    try:
        stop(patience)
    finally:
        if taken:
            _starting.release()


def process_ids() -> set[int]:
    """Return the process ids of the embedded server and its watcher, if they run."""
    return {process.pid for process in _running}


def _launch(settings: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server as Prefect does for an ephemeral one, but without importing all of it into this process."""
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = str(free.getsockname()[1])
    application = ["--factory", "prefect.server.api.server:create_app", "--lifespan", "on", "--log-level", "error"]
    process = subprocess.Popen(
        [sys.executable, "-P", server_process.__file__, *application, "--host", _HOST, "--port", port],
        env={**os.environ, **_SERVER, **settings},
        start_new_session=True,
    )
    _running.append(process)
    _running.append(_watcher_of(process.pid))
    return process, f"http://{_HOST}:{port}/api"


def _wait_for(process: subprocess.Popen[bytes], address: str) -> None:
    import httpx
    from prefect.settings import get_current_settings

    patience = get_current_settings().server.ephemeral.startup_timeout_seconds
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{address}/health", timeout=10).is_success:
                return
        time.sleep(0.05)
    ended = process.poll()
    problem = f"no answer within {patience} s" if ended is None else f"it ended with code {ended}"
    raise OspoError(
        f"Prefect's embedded server did not start: {problem}",
        remedy="Free memory and disk space, or start one with `prefect server start` and set PREFECT_API_URL",
    )


def _watcher_of(pid: int) -> subprocess.Popen[bytes]:
    """Start a shell that ends the process `pid` when this process has ended, even if it was killed."""
    return subprocess.Popen(["/bin/sh", "-c", _WATCH, "sh", str(pid)], stdin=subprocess.PIPE, start_new_session=True)


def _own_home(scratch: Path) -> Path:
    """Return `~/.ospo/prefect`, or a folder under `scratch` where the home folder cannot be written."""
    home = Path.home() / ".ospo" / "prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK)
    except OSError:
        writable = False
    return home if writable else scratch.expanduser().absolute() / "prefect"
