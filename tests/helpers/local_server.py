"""An HTTP server on this machine that answers as a test tells it to."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """What a test sees of the server.

    `answers` are functions of the handler, one for each request, the last for all that follow; `requests`
    are the headers that came.
    """

    def __init__(self, address):
        self.url = f"http://127.0.0.1:{address[1]}/data.csv"
        self.answers = []
        self.requests = []


@contextlib.contextmanager
def running_server():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            number = len(server.requests)
            server.requests.append(dict(self.headers))
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                server.answers[min(number, len(server.answers) - 1)](self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        server = Server(http_server.server_address)
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http_server.shutdown()
            thread.join()


def answer(content, status=200, **headers):
    """Answer with content; `Content_Length=None` leaves a header out, other values replace it."""

    def send(handler):
        handler.send_response_only(status)
        for name, value in {"Content-Length": len(content), "Connection": "close", **_named(headers)}.items():
            if value is not None:
                handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(content)

    return send


def file(content, cut=None, **headers):
    """Serve a file; `cut` ends the connection after so many bytes."""
    return answer(content[:cut], Content_Length=len(content), **headers)


def _named(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}
