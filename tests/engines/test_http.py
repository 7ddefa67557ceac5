"""The HTTP client against a real small server that fails in every way a server can."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from zpdbench.engines.http import Client, RefusedError
from zpdbench.errors import UserError


class Handler(BaseHTTPRequestHandler):
    """Answers with the next of `script`: (status, headers, body) or seconds to hang."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[list[Any]] = []
    calls: ClassVar[list[tuple[str, str, Any]]] = []

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.calls.append((self.command, self.path, body))
        step = self.script.pop(0) if self.script else (200, {}, b"{}")
        if step == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if isinstance(step, float):
            time.sleep(step)
            step = (200, {}, b"{}")
        status, headers, content = step
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if "Drip" in headers:
            for at in range(len(content)):
                time.sleep(0.05)
                self.wfile.write(content[at : at + 1])
            return
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815

    def address_string(self) -> str:
        return "here"

    def log_message(self, format: str, *args: Any) -> None:
        return


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture(params=["tcp", "unix"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    Handler.script, Handler.calls = [], []
    server: Any
    if request.param == "tcp":
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    else:
        server = UnixServer(str(tmp_path / "socket"), Handler)
        address = f"unix:{tmp_path / 'socket'}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield address
    server.shutdown()
    server.server_close()


def client(url: str, **options: Any) -> tuple[Client, list[float]]:
    slept: list[float] = []
    return Client(url, sleep=slept.append, **options), slept


def test_a_call_sends_and_receives_json(url: str) -> None:
    Handler.script = [(200, {}, b'{"a": [1]}')]
    assert client(url)[0].call("POST", "/completions", {"b": "가"}) == {"a": [1]}
    assert Handler.calls == [("POST", "/v1/completions", {"b": "가"})]


def test_the_root_is_above_v1(url: str) -> None:
    client(url)[0].call("GET", "/version", root=True)
    assert Handler.calls[0][1] == "/version"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_server_errors_are_tried_again(url: str, status: int) -> None:
    Handler.script = [(status, {}, b"oh"), (status, {}, b"oh"), (200, {}, b"{}")]
    one, slept = client(url)
    assert one.call("POST", "/x", {}) == {}
    assert len(slept) == 2
    assert 0 < slept[0] <= 0.5 < 1.0 <= 2 * slept[1] <= 2.0


def test_the_server_says_how_long_to_wait(url: str) -> None:
    Handler.script = [(429, {"Retry-After": "7"}, b""), (200, {}, b"{}")]
    one, slept = client(url)
    one.call("POST", "/x", {})
    assert slept == [7.0]


def test_dropped_connections_are_opened_again(url: str) -> None:
    Handler.script = ["drop", (200, {}, b'{"ok": 1}')]
    assert client(url)[0].call("POST", "/x", {}) == {"ok": 1}


def test_a_server_that_stays_broken_is_one_clear_line(url: str) -> None:
    Handler.script = [(500, {}, b'{"error": {"message": "out of\\nmemory"}}')] * 3
    with pytest.raises(UserError, match=r"3 attempts; the last: status 500") as caught:
        client(url, retries=2)[0].call("POST", "/x", {})
    assert caught.value.where == url


def test_a_server_that_hangs_is_one_clear_line(url: str) -> None:
    Handler.script = [1.0, 1.0]
    with pytest.raises(UserError, match=r"no answer within 0\.1 s"):
        client(url, retries=1, timeout=0.1)[0].call("POST", "/x", {})


def test_a_server_that_drips_is_one_clear_line(url: str) -> None:
    """Each byte comes in time; the answer does not."""
    Handler.script = [(200, {"Drip": "1"}, b"[1]" + b" " * 100)]
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 0\.5 s"):
        client(url, retries=0, timeout=0.5)[0].call("POST", "/completions", {})
    assert time.monotonic() - begun < 4


def test_an_answer_that_is_no_json_is_one_clear_line(url: str) -> None:
    Handler.script = [(200, {}, b"<html>")] * 2
    with pytest.raises(UserError, match="no JSON"):
        client(url, retries=1)[0].call("POST", "/completions", {})


def test_a_mistake_of_ours_is_not_tried_again(url: str) -> None:
    Handler.script = [(404, {}, b'{"error": {"message": "no such model"}}')]
    with pytest.raises(RefusedError, match="404 no such model"):
        client(url)[0].call("POST", "/completions", {})
    assert len(Handler.calls) == 1


def test_the_rate_is_kept(url: str) -> None:
    one = Client(url, requests_per_second=20)
    begun = time.monotonic()
    for _ in range(4):
        one.call("GET", "/x")
    assert time.monotonic() - begun >= 3 / 20


def test_nobody_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 attempts"):
        client(f"unix:{tmp_path / 'none'}", retries=0)[0].call("GET", "/x")


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://x/v1", "unix:"])
def test_an_address_of_no_known_form_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="no usable address"):
        Client(address)
