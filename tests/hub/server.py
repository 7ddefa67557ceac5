"""A small hub on loopback that speaks what huggingface_hub's client speaks, and can misbehave.

Small files are sent by `resolve` itself, large ones (as Git LFS keeps them) by a redirect, with
ranges, as the real hub does.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def git_hash(data: bytes) -> str:
    """What Git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """One repository's only commit; `large` files are kept as Git LFS keeps them."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    large: tuple[str, ...] = (".safetensors", ".parquet")

    def is_large(self, path: str) -> bool:
        return path.endswith(self.large)


@dataclass
class Fault:
    """What to do instead, for so many requests whose path ends so.

    Attributes:
        kind: status (answer `status`), hung up (no answer), cut (half of the body), other (another
            body of the same size), longer (a body of another size), moved (another commit in the
            header).
    """

    ends: str
    kind: str
    times: int = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    methods: tuple[str, ...] = ("GET", "HEAD")


@dataclass
class Hub:
    """What the server has, what it does wrong, and what it was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for one in self.faults:
                if one.times and path.endswith(one.ends) and method in one.methods:
                    one.times -= 1
                    return one
        return None

    def bodies_sent(self) -> int:
        """Requests for a file's bytes."""
        return sum(m == "GET" and not p.startswith("/api/") for m, p, _ in self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        with self.hub.lock:
            self.hub.asked.append((self.command, path, self.headers.get("Range")))
            self.hub.told.add(self.headers.get("Authorization", "")[7:])
        fault = self.hub.fault(self.command, path)
        if fault is not None and fault.kind == "status":
            return self._send(fault.status, b"{}", fault.headers)
        if fault is not None and fault.kind == "hung up":
            self.close_connection = True
            return None
        if path.startswith("/cdn/"):
            return self._cdn(path, fault)
        pieces = path.strip("/").split("/")
        api = pieces[0] == "api"
        pieces = pieces[1:] if api else pieces
        kind = pieces.pop(0) if pieces[0] in ("models", "datasets") else "models"
        name = "/".join(pieces[:2])
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None:
            return self._error(401, "RepoNotFound", "Repository Not Found")
        known = self.headers.get("Authorization", "")[7:] in self.hub.tokens
        if repo.gated and not known and not (api and pieces[2] == "revision"):
            return self._error(403, "GatedRepo", f"Access to {name} is restricted")
        revision = pieces[3] if len(pieces) > 3 else "main"
        if revision not in ("main", repo.commit):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if api and pieces[2] == "revision":
            commit = OTHER if fault is not None and fault.kind == "moved" else repo.commit
            siblings = [{"rfilename": f} for f in sorted(repo.files)]
            card = {"license": "apache-2.0"}
            return self._json({"id": name, "sha": commit, "siblings": siblings, "cardData": card})
        if api and pieces[2] == "tree":
            assert "recursive" in parse_qs(parts.query)
            return self._json([self._entry(repo, f) for f in sorted(repo.files)])
        return self._resolve(repo, "/".join(pieces[4:]), f"{kind}/{name}", fault)

    def _entry(self, repo: Repo, path: str) -> dict[str, object]:
        data = repo.files[path]
        size, oid = len(data), git_hash(data)
        entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": oid}
        if repo.is_large(path):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        return entry

    def _resolve(self, repo: Repo, path: str, name: str, fault: Fault | None) -> None:
        if path not in repo.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        data = repo.files[path]
        moved = fault is not None and fault.kind == "moved"
        headers = {"X-Repo-Commit": OTHER if moved else repo.commit}
        if fault is not None and fault.kind == "longer":
            data = data + b"more"
        if repo.is_large(path):
            headers["X-Linked-Size"] = str(len(data))
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            # Another host, as a content network is: the client looks behind no such redirect.
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
            headers["Location"] = f"{elsewhere}/cdn/{name}/{path}"
            return self._send(302, b"", headers)
        headers["ETag"] = f'"{git_hash(data)}"'
        return self._body(data, headers, fault)

    def _cdn(self, path: str, fault: Fault | None) -> None:
        _, _, kind, owner, repo, file = path.split("/", 5)
        data = self.hub.repos[f"{kind}/{owner}/{repo}"].files[file]
        self._body(data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, fault)

    def _body(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        if fault is not None and fault.kind == "other":
            data = bytes(255 - b for b in data)
        status, total = 200, len(data)
        wanted = self.headers.get("Range")
        if wanted is not None:
            first = int(wanted.removeprefix("bytes=").split("-")[0])
            status, data = 206, data[first:]
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        if fault is not None and fault.kind == "cut" and self.command == "GET":
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(1)
            return None
        return self._send(status, data, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port of loopback, until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
