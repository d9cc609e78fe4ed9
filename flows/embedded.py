"""Settings for Prefect's embedded server, to be made before Prefect is imported, and its safe end.

A user who has a server (PREFECT_API_URL, or a Prefect profile of their own) keeps it, and nothing is changed.
"""

from __future__ import annotations

import atexit
import os
import subprocess
from pathlib import Path

from ospo_core.errors import OspoError

_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
_ALWAYS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
}
_WATCH = 'read -r _; kill "$1" 2>/dev/null'
"""Shell script: when the pipe it reads from closes, because its owner is gone, end the process given."""


def configure_prefect(scratch: Path, verbose: bool = False) -> None:
    """Set what is not set yet in the environment; call it before Prefect is imported.

    Args:
        scratch: folder for Prefect's own files where the home folder cannot be written.
        verbose: leave Prefect's logs on the terminal.
    """
    set_defaults(verbose)
    if "PREFECT_HOME" not in os.environ and not (Path.home() / ".prefect" / "profiles.toml").is_file():
        os.environ["PREFECT_HOME"] = str(_own_home(scratch))
    home = os.environ.get("PREFECT_HOME")
    if home:
        os.environ.setdefault("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(Path(home) / "storage"))
        os.environ.setdefault("PREFECT_SERVER_MEMO_STORE_PATH", str(Path(home) / "memo_store.toml"))


def set_defaults(verbose: bool = False) -> None:
    """Set time-outs, and unless `verbose` quiet logs, where the environment does not say otherwise."""
    for name, value in {**_ALWAYS, **({} if verbose else _QUIET)}.items():
        os.environ.setdefault(name, value)


def start_server() -> None:
    """Start the embedded server if the user has none, and make sure that it never outlives this process.

    Prefect ends it at a normal exit; if this process is killed, a small shell that waits on a pipe ends it.

    Raises:
        OspoError: the user's server does not answer, or the embedded one does not start.
    """
    from prefect.settings import get_current_settings

    address = get_current_settings().api.url
    if address:
        _check_answers(address)
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    try:
        server.start()
    except RuntimeError as error:
        raise OspoError(
            f"Prefect's embedded server did not start: {error}",
            remedy="Free memory and disk space, or start one with `prefect server start` and set PREFECT_API_URL",
        ) from error
    if server.server_process is not None:
        _end_with_us(server.server_process.pid)


def _check_answers(address: str) -> None:
    import httpx

    try:
        httpx.get(f"{address}/health", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        raise OspoError(
            f"the Prefect server does not answer: {error}",
            field="PREFECT_API_URL",
            value=address,
            remedy="Start it, or unset the variable to use an embedded server",
        ) from error


def _end_with_us(pid: int) -> None:
    watcher = subprocess.Popen(["/bin/sh", "-c", _WATCH, "sh", str(pid)], stdin=subprocess.PIPE, start_new_session=True)

    def dismiss() -> None:
        watcher.kill()
        if watcher.stdin is not None:
            watcher.stdin.close()
        watcher.wait()

    atexit.register(dismiss)


def _own_home(scratch: Path) -> Path:
    """Return `~/.ospo/prefect`, or a folder under `scratch` where the home folder cannot be written."""
    home = Path.home() / ".ospo" / "prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK)
    except OSError:
        writable = False
    return home if writable else scratch.expanduser().absolute() / "prefect"
