"""`popcomm watch`: a run's page on loopback, while training goes on or afterwards; nothing but GET."""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from popcomm.analysis.watched import Watched

from popcomm.errors import UserError

ADDRESS = "127.0.0.1"
# A page of another site that has its name led here must not read a run: only these names are answered.
NAMES = (ADDRESS, "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Answers with what is known of a run.

    Args:
        port: 0: a free one.

    Raises:
        UserError: the port is taken, or not allowed.
    """

    daemon_threads = True

    def __init__(self, watched: Watched, port: int) -> None:
        self.watched = watched
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port {port} cannot be used ({error.strerror}); name another one, or 0 for a free one"
            ) from error

    def server_bind(self) -> None:
        """Without asking for the name of the address, as the class above does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30  # seconds, for those who connect and say nothing

    def do_GET(self) -> None:
        if (self.headers.get("Host") or "").rpartition(":")[0] not in NAMES:
            return self._answer(HTTPStatus.FORBIDDEN, "text/plain", "This is answered on loopback only.\n")
        asked = urlsplit(self.path)
        if asked.path == "/":
            return self._answer(HTTPStatus.OK, "text/html", self.server.watched.page)
        if asked.path == "/live.json":
            seen = parse_qs(asked.query).get("seen", [""])[-1]
            return self._answer(HTTPStatus.OK, "application/json", _joined(self.server.watched.news(seen)))
        return self._answer(HTTPStatus.NOT_FOUND, "text/plain", "There is / and /live.json.\n")

    def _refuse(self) -> None:
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "Nothing but GET is answered.\n", Allow="GET")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _refuse

    def _answer(self, status: HTTPStatus, kind: str, text: str, **headers: str) -> None:
        body = text.encode()
        # Whoever asked may be gone.
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            told = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), **HEADERS, **headers}
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page asks every other second."""


def _joined(news: dict[str, Any]) -> str:
    """As JSON; the parts are JSON already, and large."""
    parts = ",".join(f"{json.dumps(name)}:{text}" for name, text in news.pop("parts").items())
    return f'{json.dumps(news)[:-1]}, "data": {{{parts}}}}}'
