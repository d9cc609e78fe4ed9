"""A server that writes whatever bytes a test wants, at the pace that it wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"


@contextmanager
def raw_server(send: Callable[[socket.socket], None], head: bytes = OK) -> Iterator[tuple[str, list[int]]]:
    """Serve `head` and what `send` writes, then hang up; yield the address, and a list with one entry per request."""
    asked: list[int] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            asked.append(1)
            connection.sendall(head)
            send(connection)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection.recv(65536):  # what is left unread at a close makes the system drop what was sent
                pass

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
