"""The server of `ospo browse`: on this machine's loopback address only, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import uvicorn

from ospo import output
from ospo.actions import storage_of
from ospo.browse.security import LOOPBACK
from ospo.browse.site import build_site
from ospo_core.config import load_profile
from ospo_core.errors import ConfigError


def serve(profile: str, overrides: Sequence[str], port: int) -> None:
    """Show the storage of a profile until the process is told to end.

    Raises:
        ConfigError: the port cannot be used.
        StorageError: the storage cannot be reached.
    """
    app = build_site(storage_of(load_profile(profile, overrides)))
    with _bound(port) as listening:
        address = f"http://{LOOPBACK[0]}:{listening.getsockname()[1]}/"
        output.show_text(f"Look at {address} on this machine. Ctrl-C ends it.")
        settings = uvicorn.Config(
            app,
            loop="asyncio",  # uvloop would take the wake-up pipe by which `quick_end` learns of signals
            lifespan="off",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        uvicorn.Server(settings).run(sockets=[listening])


def _bound(port: int) -> socket.socket:
    """Return a socket that listens on the loopback address, so that who connects now is answered soon."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((LOOPBACK[0], port))
        opened.listen()
    except OSError as error:
        opened.close()
        reason = (error.strerror or "cannot be used").lower()
        raise ConfigError(reason, field="--port", value=port, remedy="Give another port, or 0") from error
    return opened
