"""A local page of a stream's health, for a monitoring agent on the same device: off unless it is asked for.

```python
with serve(9184, health) as endpoint:
    ...                                   # GET http://127.0.0.1:9184/metrics, /health, /livez, /readyz
```

Rules this file keeps:

1. It listens on 127.0.0.1 and nowhere else; there is no option for another address. Who wants the figures on a network puts an agent of their own in front, with
   the access control of their own.
2. It only answers, and only about counters: nothing can be set, no frame, label, file or patient is in what it says (`health.py`).
3. A web page that a browser on the device shows must not read it: the Host header must name the loopback (DNS rebinding), a request with an Origin is refused, and
   no header allows another origin anything.
4. A request is small, whole within a time, and one of a few at once; whatever else comes is refused and costs the stream nothing but that.
5. Its threads end with the process.
"""

from __future__ import annotations

import io
import json
import socket
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from edgekit.errors import OutputError
from edgekit.runtime import metrics
from edgekit.runtime.degradation import NO_RESULT
from edgekit.runtime.health import Health, HealthSnapshot

ADDRESS = "127.0.0.1"
MAX_CONNECTIONS = 8
MAX_REQUEST_BYTES = 8192
REQUEST_TIME_S = 5.0
"""In this time a request must have come whole, and its answer must have been taken."""
STALE_S = 5.0
"""A stream without a result for this long does not give current results."""


def serve(port: int, health: Health) -> Endpoint:
    """Starts to answer, in threads of its own.

    Args:
        port: On 127.0.0.1; 0 for any that is free.
        health: What is told.

    Raises:
        OutputError: The port cannot be had.
    """
    return Endpoint(port, health)


def readiness(snapshot: HealthSnapshot) -> tuple[bool, str]:
    """Whether a stream gives current results, and if not, why not."""
    if snapshot.since_last_result_s is None:
        return False, "no frame was answered yet"
    if snapshot.since_last_result_s > STALE_S:
        return False, f"no frame was answered in the last {STALE_S:g} seconds"
    if snapshot.step == NO_RESULT:
        return False, "the device is overloaded: no results are given"
    return True, "results are current"


class Endpoint:
    """A page that is being served; `close` ends it. It may be used as a context manager.

    Attributes:
        port: Where.
    """

    def __init__(self, port: int, health: Health) -> None:
        if not 0 <= port <= 65535:
            raise OutputError(f"there is no port {port}", hint="ports are 1 to 65535; 0 is any that is free")
        try:
            self._server = _Server(port, health)
        except OSError as error:
            raise OutputError(
                f"health cannot be served on port {port} of {ADDRESS}: {error.strerror or error}", hint="choose another port above 1023"
            ) from error
        self.port: int = self._server.server_address[1]
        # Looked at this often for `close`; requests do not wait for it.
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="edgekit-health", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Endpoint:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening; again does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, port: int, health: Health) -> None:
        self.health = health
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((ADDRESS, port), _Handler)

    def server_bind(self) -> None:
        """Binds without asking a name server what this machine is called, as the base class does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread, or hangs up where there are enough of them."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What a thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; everything else is, and is shown."""
        import sys

        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIME_S

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BytesIO(_head(self.connection))

    def __getattr__(self, name: str) -> Any:
        # The base class looks for `do_` and the method's name, whatever the client calls it.
        if name.startswith("do_"):
            return self._refuse_method
        raise AttributeError(name)

    def do_GET(self) -> None:
        """Answers one of the four pages."""
        if not self._comes_from_here():
            self._send(HTTPStatus.FORBIDDEN, "this page is for programs on this device")
            return
        snapshot = self.server.health.snapshot()
        ready, why = readiness(snapshot)
        if self.path == "/metrics":
            self._send(HTTPStatus.OK, metrics.prometheus_text(snapshot, ready=ready), metrics.CONTENT_TYPE)
        elif self.path == "/health":
            table = {**snapshot.to_json(), "ready": ready, "ready_reason": why}
            self._send(HTTPStatus.OK, json.dumps(table, allow_nan=False) + "\n", "application/json")
        elif self.path == "/livez":
            self._send(HTTPStatus.OK, "alive\n")
        elif self.path == "/readyz":
            self._send(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n")
        else:
            self._send(HTTPStatus.NOT_FOUND, "there are /metrics, /health, /livez and /readyz\n")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the base class's signature
        """What the base class refuses; nothing that the client sent is repeated."""
        self._send(HTTPStatus(code), f"{HTTPStatus(code).phrase}\n")

    def version_string(self) -> str:
        """Who answers; no versions."""
        return "edgekit"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Requests are not logged."""

    def _refuse_method(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "GET only\n")

    def _comes_from_here(self) -> bool:
        """Rule 3."""
        hosts = self.headers.get_all("Host", [])
        names = {f"{name}{port}" for name in (ADDRESS, "localhost") for port in ("", f":{self.server.server_port}")}
        return len(hosts) == 1 and hosts[0].strip().lower() in names and "Origin" not in self.headers

    def _send(self, status: HTTPStatus, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.close_connection = True
        self.send_response(status)
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET"
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _head(connection: socket.socket) -> bytes:
    """A request up to its empty line; what comes behind is not read.

    Raises:
        TimeoutError: It did not come in time, or is too long.
    """
    deadline_s, received = time.monotonic() + REQUEST_TIME_S, b""
    while b"\r\n\r\n" not in received and b"\n\n" not in received:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or len(received) >= MAX_REQUEST_BYTES:
            raise TimeoutError
        connection.settimeout(left_s)
        block = connection.recv(MAX_REQUEST_BYTES - len(received))
        if not block:
            break
        received += block
    connection.settimeout(REQUEST_TIME_S)
    return received
