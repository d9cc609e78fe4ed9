"""The server listens on this machine only, says where, and ends with Ctrl-C; a used port is one message."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from ospo.browse.serve import serve
from ospo_core.errors import ConfigError
from tests.support.browsed_round import BrowsedRound


@pytest.fixture
def server(made: BrowsedRound) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "ospo", "browse", "--port", "0", "--set", f"storage.root={made.storage.root}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        if process.poll() is None:
            process.kill()


def test_it_answers_on_loopback_until_it_is_told_to_end(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", server.stdout.readline())
    assert found is not None
    with urllib.request.urlopen(found[0], timeout=20) as answer:
        assert answer.status == 200 and b"Rounds" in answer.read()
        assert "uvicorn" not in str(answer.headers).lower()
    os.kill(server.pid, signal.SIGINT)
    _, err = server.communicate(timeout=20)
    assert server.returncode == 130 and "Traceback" not in err


def test_a_used_port_is_one_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--port: address already in use"):
            serve("shapes", [], taken.getsockname()[1])
