"""A real S3-compatible object store on loopback for tests: Ceph's RADOS Gateway, one monitor, one OSD in memory.

Debian 12: `apt-get install --no-install-recommends ceph-mon ceph-osd radosgw` (about 60 MB). It is up in about 12 s and
takes about 0.8 GB of memory. Unlike imitations it checks signatures and answers conditional puts as S3 does.
"""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
PACKAGES = ("ceph-mon", "ceph-osd", "radosgw")
_PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
_START_TIMEOUT = 90
_CONF = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor_port}
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
pid file = {folder}/$name.pid
mon data = {folder}/mon
mon allow pool size one = true
mon data avail crit = 1
mon osd full ratio = .99
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
osd max object name len = 256
osd max object namespace len = 64
osd numa auto affinity = false
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
rgw dns name = localhost
rgw thread pool size = 32
rgw enable usage log = false
"""


@dataclass(frozen=True)
class S3Server:
    """A running object store.

    Attributes:
        endpoint_url: its address, `http://127.0.0.1:port`.
        access_key: access key of its only user.
        secret_key: secret key of its only user.
    """

    endpoint_url: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY


def missing_programs() -> list[str]:
    """Return the programs that the store needs and this machine lacks."""
    return [program for program in _PROGRAMS if shutil.which(program) is None]


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run the object store in `folder` (short path: it holds sockets) for as long as the block lasts.

    Raises:
        RuntimeError: a program failed or the gateway did not answer; the message ends with its log.
    """
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    conf, fsid = folder / "ceph.conf", str(uuid.uuid4())
    port, monitor_port = _free_port(), _free_port()
    conf.write_text(_CONF.format(fsid=fsid, monitor_port=monitor_port, port=port, folder=folder), encoding="utf-8")
    with ExitStack() as daemons:
        _start_cluster(daemons, folder, conf, fsid, monitor_port)
        daemons.enter_context(_daemon(folder, ["radosgw", "-f", "-n", "client.rgw", "-c", str(conf)]))
        user = ["user", "create", "--uid=test", "--display-name=test"]
        keys = [f"--access-key={ACCESS_KEY}", f"--secret={SECRET_KEY}"]
        _run(folder, ["radosgw-admin", "-n", "client.rgw", "-c", str(conf), *user, *keys])
        _wait_for_answer(folder, port)
        yield S3Server(f"http://127.0.0.1:{port}")


def _start_cluster(daemons: ExitStack, folder: Path, conf: Path, fsid: str, monitor_port: int) -> None:
    """Make and start the monitor and the OSD."""
    monmap, osd = str(folder / "monmap"), str(uuid.uuid4())
    monitor, store = ["ceph-mon", "-i", "a", "-c", str(conf)], ["ceph-osd", "-i", "0", "-c", str(conf)]
    _run(folder, ["monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"v1:127.0.0.1:{monitor_port}", monmap])
    _run(folder, [*monitor, "--mkfs", "--monmap", monmap])
    daemons.enter_context(_daemon(folder, [*monitor, "-f"]))
    _run(folder, ["/usr/bin/python3", str(shutil.which("ceph")), "-c", str(conf), "osd", "new", osd])
    _run(folder, [*store, "--mkfs", "--osd-uuid", osd])
    _start_store(daemons, folder, [*store, "-f"])


def _start_store(daemons: ExitStack, folder: Path, command: list[str], attempts: int = 5) -> None:
    """Start the OSD and wait until it is active; on a busy machine it may greet the monitor too early and exit."""
    log = folder / "osd.0.log"
    for _ in range(attempts):
        process = daemons.enter_context(_daemon(folder, command))
        end = time.monotonic() + _START_TIMEOUT
        while process.poll() is None and time.monotonic() < end:
            if "state: booting -> active" in log.read_text(encoding="utf-8", errors="replace"):
                return
            time.sleep(0.2)
    raise RuntimeError(f"ceph-osd did not start: {log.read_text(encoding='utf-8', errors='replace')[-800:]}")


def _run(folder: Path, command: list[str]) -> None:
    """Run one command of the set-up to its end; its output goes to a log."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_START_TIMEOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}: {done.stderr[-800:]}")


@contextmanager
def _daemon(folder: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run one daemon for as long as the block lasts."""
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_answer(folder: Path, port: int, seconds: float = _START_TIMEOUT) -> None:
    """Wait until the gateway answers a request."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    log = (folder / "client.rgw.log").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"the gateway did not answer on port {port} in {seconds:.0f} s: {log[-800:]}")


def _free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
