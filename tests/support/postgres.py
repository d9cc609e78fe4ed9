"""A real PostgreSQL server on loopback for tests, from Debian's package (`apt-get install postgresql`).

The server refuses to run as root; started by root it runs as the user `postgres` that the package makes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "postgresql"
_PROGRAMS = ("initdb", "pg_ctl")
_SECONDS = "120"
_USER = "prefect"


@dataclass(frozen=True)
class PostgresServer:
    """A running server.

    Attributes:
        port: its port on 127.0.0.1.
        password: of its only user, `prefect`, who owns the database `postgres`.
    """

    port: int
    password: str

    @property
    def url(self) -> str:
        """The address as Prefect wants it."""
        return f"postgresql+asyncpg://{_USER}:{self.password}@127.0.0.1:{self.port}/postgres"


def missing_server() -> list[str]:
    """Return the programs that the server needs and this machine lacks."""
    return [name for name in _PROGRAMS if _program(name) is None]


@contextmanager
def postgres_server(folder: Path) -> Iterator[PostgresServer]:
    """Run a new server with its files in `folder` (short path: it holds a socket) for as long as the block lasts."""
    server = PostgresServer(_free_port(), secrets.token_urlsafe(18))
    secret, data = folder / "password", folder / "data"
    secret.write_text(server.password, encoding="utf-8")
    if os.geteuid() == 0:
        for path in (folder, secret):
            shutil.chown(path, "postgres")
    sign = ["--auth=scram-sha-256", f"--username={_USER}", f"--pwfile={secret}", "--encoding=UTF8", "--no-sync"]
    _run("initdb", f"--pgdata={data}", *sign)
    options = f"-p {server.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = ("--pgdata", str(data), "--wait", "--timeout", _SECONDS)
    _run("pg_ctl", "start", *control, "--log", str(folder / "log"), "--options", options)
    try:
        yield server
    finally:
        _run("pg_ctl", "stop", *control, "--mode", "immediate")


def _program(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs, the newest version's; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


def _run(name: str, *arguments: str) -> None:
    """Run one of its programs to the end, not as root; the server that it starts keeps no pipe of ours open."""
    command = [str(_program(name)), *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
