"""JSON over HTTP, by TCP or unix socket: one connection a thread, retries with back-off, a rate."""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from zpdbench.errors import UserError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 60.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RefusedError(Exception):
    """The server answered with a client error: asking again would not help."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(f"{status} {message}")


class Client:
    """Calls one server.

    Args:
        base_url: `http://host:port/v1`, `https://...`, or `unix:/path/to/socket`.
        timeout: seconds that one answer may take, from the call to its last byte.
        retries: how often a failed call is made again.
        requests_per_second: at most; None: as fast as answers come.
        key: sent as bearer token.

    Raises:
        UserError: a URL of another form.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 300.0,
        retries: int = 4,
        requests_per_second: float | None = None,
        key: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url, self._timeout, self._retries = base_url, timeout, retries
        self._sleep = sleep
        self._interval = 1 / requests_per_second if requests_per_second else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self._local = threading.local()
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        parts = urlsplit(base_url)
        if parts.scheme == "unix" and parts.path:
            self._connect: Callable[[], http.client.HTTPConnection] = lambda: _UnixConnection(
                parts.path, timeout
            )
            self._root, prefix = "", "/v1"
        elif parts.scheme in ("http", "https") and parts.hostname:
            host, port = parts.hostname, parts.port
            if parts.scheme == "http":
                self._connect = lambda: http.client.HTTPConnection(host, port, timeout=timeout)
            else:
                context = ssl.create_default_context()
                self._connect = lambda: http.client.HTTPSConnection(
                    host, port, timeout=timeout, context=context
                )
            path = parts.path.rstrip("/")
            prefix = path or "/v1"
            self._root = prefix.removesuffix("/v1")
        else:
            raise UserError(
                f"no usable address: {base_url!r}",
                where="generations.base_url",
                fix="give http://HOST:PORT/v1 or unix:/path/to/socket",
            )
        self._prefix = prefix

    def call(self, method: str, path: str, body: Any = None, *, root: bool = False) -> Any:
        """One call; its JSON (None for an empty answer), or its text where that is no JSON.

        Args:
            method: GET or POST.
            path: below /v1, or below the server's root with `root`.
            body: sent as JSON.

        Raises:
            RefusedError: a client error (4xx), with what the server says.
            UserError: no answer, server errors or garbage after all retries.
        """
        target = (self._root if root else self._prefix) + path
        data = None if body is None else json.dumps(body).encode("utf-8")
        problem = ""
        for attempt in range(self._retries + 1):
            self._wait_for_turn()
            wait: float | None = None
            try:
                status, headers, content = self._once(method, target, data)
            except (OSError, http.client.HTTPException) as error:
                self._forget()
                slow = isinstance(error, TimeoutError)
                problem = (
                    f"no answer within {self._timeout:g} s"
                    if slow
                    else f"{type(error).__name__}: {error}"
                )
            else:
                if status < 400:
                    try:
                        return json.loads(content) if content.strip() else None
                    except ValueError:
                        if method == "POST" and not path.endswith("_adapter"):
                            problem = f"an answer that is no JSON: {_short(content)!r}"
                        else:
                            return content.decode("utf-8", "replace")
                elif status not in RETRIED:
                    raise RefusedError(status, _message(content))
                else:
                    problem = f"status {status}: {_message(content)}"
                    wait = _retry_after(headers)
            if attempt < self._retries:
                self._sleep(wait if wait is not None else _back_off(attempt))
        raise UserError(
            f"gave no usable answer in {self._retries + 1} attempts; the last: {problem}",
            where=self.base_url,
            fix="look at the server's log; finished cells are kept, run again when it is up",
        )

    def close(self) -> None:
        """Close this thread's connection."""
        self._forget()

    def _once(self, method: str, target: str, data: bytes | None) -> tuple[int, Any, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        if connection.sock is None:
            connection.connect()
        # A socket's own timeout is for each of its operations; a server may drip for ever.
        late = threading.Event()
        clock = threading.Timer(self._timeout, _cut, (connection.sock, late))
        clock.daemon = True
        clock.start()
        try:
            connection.request(method, target, data, self._headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            if late.is_set():
                raise TimeoutError from error
            raise
        finally:
            clock.cancel()
        if late.is_set():
            raise TimeoutError
        return response.status, response.headers, content

    def _forget(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _wait_for_turn(self) -> None:
        if not self._interval:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._sleep(turn - now)


def _cut(connected: socket.socket, late: threading.Event) -> None:
    late.set()
    # It may be closed already; then nobody waits for it.
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _back_off(attempt: int) -> float:
    # Random, so that many clients do not come back at once; a wait changes no result.
    return min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)


def _retry_after(headers: Any) -> float | None:
    try:
        return min(LONGEST_WAIT, max(0.0, float(headers.get("Retry-After"))))
    except (TypeError, ValueError):
        return None


def _short(content: bytes) -> str:
    return " ".join(content[:200].decode("utf-8", "replace").split())


def _message(content: bytes) -> str:
    try:
        found = json.loads(content)
        error = found.get("error", found)
        return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
    except (ValueError, AttributeError):
        return _short(content)
