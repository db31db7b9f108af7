"""A small HTTP proxy in front of a server that remembers which paths were asked for."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "host"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str
    paths: list[str]

    def answer(self) -> None:
        if self.path.startswith("/-/"):
            self.own()
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        self.paths.append(f"{self.command} {urlsplit(self.path).path}")
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        connection.request(self.command, self.path, body, sent)
        response = connection.getresponse()
        self.give(response.status, response.getheaders(), response.read())
        connection.close()

    def own(self) -> None:
        """``/-/forget`` empties the list of paths, ``/-/paths`` gives it."""
        if self.path == "/-/forget":
            self.paths.clear()
        self.give(200, [("Content-Type", "application/json")], json.dumps(self.paths).encode())

    def give(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() == "retry-after":
                # Clients that wait as they are told would wait out the test.
                self.send_header(name, "1")
            elif name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the paths are kept, not printed."""


@contextmanager
def recording_proxy(url: str) -> Iterator[str]:
    """The address of a proxy in front of ``url`` for the length of a ``with`` block."""
    handler = type("Handler", (_Handler,), {"upstream": urlsplit(url).netloc, "paths": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
