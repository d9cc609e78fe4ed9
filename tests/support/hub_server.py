"""A stand-in for the Hugging Face Hub on the loopback device: no hub can be reached from here.

It serves one folder as the repository `owner/tiny` by the part of the hub's interface that a download uses: what a
revision is, what a commit holds, and the files. `owner/gated` needs a licence; everything else is not found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest

NAME = "owner/tiny"
COMMIT = "1234567890abcdef1234567890abcdef12345678"


class HubServer:
    """The server: `requests` are the paths that were asked for, `url` is its address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.requests = folder, list[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append(self.path)
                status, headers, body = hub.answer(self.path.partition("?")[0])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; the address refuses connections from then on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a path."""
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name == "owner/gated":
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if name != NAME:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if parts[0] != "api":
            return self._file(Path(*parts[4:]))
        if parts[4] == "revision" and parts[5] not in ("main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        described = [self._entry(file) for file in sorted(self.folder.rglob("*")) if file.is_file()]
        body = described if parts[4] == "tree" else {"id": NAME, "sha": COMMIT, "siblings": []}
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    def _entry(self, file: Path) -> dict[str, object]:
        data = file.read_bytes()
        name = file.relative_to(self.folder).as_posix()
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _file(self, name: Path) -> tuple[int, dict[str, str], bytes]:
        if not (self.folder / name).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        data = (self.folder / name).read_bytes()
        return 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, data


@contextmanager
def hub_server(folder: Path, cache: Path, patch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve `folder` and point the hub's client at the server, and at an empty cache, while the block runs."""
    server = HubServer(folder)
    files = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)  # read from HF_ENDPOINT when it is imported
    patch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    try:
        yield server
    finally:
        server.close()
