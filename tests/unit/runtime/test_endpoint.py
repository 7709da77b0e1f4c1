"""The local page: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time

import pytest

from edgekit.errors import OutputError
from edgekit.runtime import endpoint as module
from edgekit.runtime.degradation import NO_RESULT
from edgekit.runtime.endpoint import readiness, serve
from edgekit.runtime.health import Health
from edgekit.runtime.sensors import Sensors

SENSORS = Sensors(temperatures_c={"cpu": 50.0}, clocks_mhz={}, unavailable={"clocks_mhz": "why"})


class Clock:
    now_ns = 0

    def __call__(self):
        return self.now_ns


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock_ns=clock, sensors=lambda: SENSORS)


@pytest.fixture
def endpoint(health):
    with serve(0, health) as served:
        yield served


def ask(endpoint, path="/health", method="GET", headers=None, body=None):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def talk(endpoint, data):
    """The bytes that come back for some bytes."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        received = b""
        while block := line.recv(4096):
            received += block
        return received


def test_health_is_json(endpoint, health):
    """It is the snapshot, and whether results are current."""
    health.captured(3)
    status, headers, text = ask(endpoint)
    table = json.loads(text)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert (table.pop("ready"), table.pop("ready_reason")) == (False, "no frame was answered yet")
    assert table == json.loads(json.dumps(health.snapshot().to_json()))
    assert table["captured"] == 3


def test_metrics_are_prometheus_text(endpoint, health):
    """The format's type is named, and the counters are the recorder's."""
    health.captured(3)
    status, headers, text = ask(endpoint, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "edgekit_frames_captured_total 3\n" in text
    assert "edgekit_ready 0\n" in text


def test_alive_and_ready_are_two_things(endpoint, health, clock):
    """The program is alive from the start; it is ready while results are current, and says why it is not."""
    found = [ask(endpoint, "/readyz")[0]]
    health.processed(latency_ms=1.0, age_ms=1.0)
    found.append(ask(endpoint, "/readyz")[0])
    clock.now_ns += round((module.STALE_S + 1) * 1e9)
    status, _, text = ask(endpoint, "/readyz")
    assert [*found, status] == [503, 200, 503]
    assert "no frame was answered in the last 5 seconds" in text
    assert ask(endpoint, "/livez")[::2] == (200, "alive\n")


def test_a_stream_that_gives_no_results_is_not_ready(health):
    """On the last step of the ladder, and on that one only."""
    health.processed(latency_ms=1.0, age_ms=1.0)
    assert readiness(health.snapshot())[0]
    health.at_step(NO_RESULT)
    assert readiness(health.snapshot()) == (False, "the device is overloaded: no results are given")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW", "get"])
def test_other_methods_are_refused(endpoint, method):
    """Nothing can be set or asked in another way."""
    status, headers, _ = ask(endpoint, method=method, body=b"x" if method == "POST" else None)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/", "/health/", "/health?x=1", "/../etc/passwd", "http://127.0.0.1/health", "/HEALTH"])
def test_other_paths_are_not_there(endpoint, path):
    """Four names, exactly; and nothing of the path comes back."""
    status, _, text = ask(endpoint, path)
    assert status == 404
    assert "passwd" not in text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:{port}", "localhost", "localhost:{port}", "LOCALHOST:{port}"])
def test_the_loopbacks_names_are_answered(endpoint, host):
    """With the port or without."""
    assert ask(endpoint, headers={"Host": host.format(port=endpoint.port)})[0] == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:{port}", "localhost.attacker.example", "127.0.0.1:1", "0.0.0.0", "", "127.0.0.1@x"]
)
def test_another_host_is_refused(endpoint, host):
    """A name that a rebinding attacker pointed at the loopback is not the loopback's."""
    assert ask(endpoint, headers={"Host": host.format(port=endpoint.port)})[0] == 403


def test_no_host_or_two_are_refused(endpoint):
    """A request says once where it goes."""
    port = endpoint.port
    assert b" 403 " in talk(endpoint, b"GET /health HTTP/1.0\r\n\r\n").splitlines()[0]
    two = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: attacker.example\r\n\r\n".encode()
    assert b" 403 " in talk(endpoint, two).splitlines()[0]


def test_another_origin_is_refused_and_allowed_nothing(endpoint):
    """A web page on this device cannot read it."""
    status, headers, text = ask(endpoint, headers={"Origin": "http://attacker.example"})
    assert status == 403
    assert "captured" not in text
    for path in ("/health", "/metrics"):
        headers = ask(endpoint, path)[1]
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"], headers["Server"]) == ("no-store", "nosniff", "edgekit")


def test_it_listens_on_the_loopback_only(endpoint):
    """The socket is bound to 127.0.0.1, and no argument says otherwise."""
    assert endpoint._server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(TypeError):
        serve(0, endpoint._server.health, "0.0.0.0")


def test_a_request_that_is_too_long_is_hung_up_on(endpoint, capfd):
    """Nothing of it is kept or printed, and the next one is answered."""
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(endpoint, headers={"X": "x" * module.MAX_REQUEST_BYTES})
    assert ask(endpoint)[0] == 200
    assert capfd.readouterr() == ("", "")


def drip(line, until):
    while time.monotonic() < until:
        line.sendall(b"G")
        time.sleep(0.05)


def test_a_request_that_does_not_end_is_hung_up_on(endpoint, monkeypatch):
    """Also one that sends a byte now and then: the time is the whole request's."""
    monkeypatch.setattr(module, "REQUEST_TIME_S", 0.4)
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as line, pytest.raises(ConnectionError):
        drip(line, until=start + 8)
    assert time.monotonic() - start < 5
    assert ask(endpoint)[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n\n",
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno header\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_no_health(endpoint, data, capfd):
    """It is refused or hung up on, without a word on the terminal, and the next request is answered."""
    assert b"captured" not in talk(endpoint, data)
    assert ask(endpoint)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_connections_are_bounded(endpoint):
    """Beyond a few that say nothing, further ones are hung up on; when those are gone, there is room again."""
    idle = [socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) for _ in range(module.MAX_CONNECTIONS)]
    until = time.monotonic() + 10
    while endpoint._server._free._value and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(endpoint)
    assert (
        sum(thread.name.startswith("Thread") and "process_request_thread" in thread.name for thread in threading.enumerate())
        <= module.MAX_CONNECTIONS
    )
    for line in idle:
        line.close()
    while endpoint._server._free._value < module.MAX_CONNECTIONS and time.monotonic() < until:
        time.sleep(0.01)
    assert ask(endpoint)[0] == 200


def test_a_port_in_use_is_one_clear_error(endpoint, health):
    """It names the port, and says what to do."""
    with pytest.raises(OutputError, match=f"on port {endpoint.port} of 127.0.0.1: Address already in use") as caught:
        serve(endpoint.port, health)
    assert caught.value.hint


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(health, port):
    """Before anything is bound."""
    with pytest.raises(OutputError, match=f"there is no port {port}"):
        serve(port, health)


def test_closing_frees_the_port(health):
    """The port can be had again at once, no thread is left, and closing twice does nothing."""
    before = threading.active_count()
    served = serve(0, health)
    ask(served)
    served.close()
    served.close()
    again = serve(served.port, health)
    again.close()
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before
