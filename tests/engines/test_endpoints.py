"""The openai engine against endpoints that are not what they should be; none needs vLLM."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.engines.conftest import Model
from zpdbench import files, grid
from zpdbench.engines import Request, Settings, open_engine
from zpdbench.engines.openai_engine import served_model
from zpdbench.errors import UserError
from zpdbench.generations.cells import Cache, Cell

REQUEST = Request((5, 6, 7), max_tokens=4)
WHOLE = {"model": "tiny", "choices": [{"text": "ab", "finish_reason": "stop"}]}


class Endpoint(BaseHTTPRequestHandler):
    """Lists one model and answers completions by `behave`, which gets the call's number from 1."""

    protocol_version = "HTTP/1.1"
    behave: ClassVar[Callable[[int], tuple[int, Any]]]
    calls: ClassVar[int] = 0
    listed: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.send(200, {"data": [{"id": "tiny", **self.listed}]})
        else:
            self.send(404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        Endpoint.calls += 1
        self.send(*Endpoint.behave(Endpoint.calls))

    def send(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that waited no longer is what some tests are about."""


@pytest.fixture
def url() -> Iterator[str]:
    Endpoint.calls, Endpoint.listed = 0, {}
    server = Server(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def opened(models: dict[str, Model], url: str, **options: Any) -> Any:
    given = {"retries": 1, "timeout": 0.5, "in_flight": 1, **options}
    return open_engine("openai", models["qwen2"].checkpoint, Settings(base_url=url, options=given))


def hang(_: int) -> tuple[int, Any]:
    time.sleep(3)
    return 200, WHOLE


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (lambda _: (500, {"error": "broken"}), "500"),
        (hang, "(?i)timed out|time|no answer"),
        (
            lambda _: (200, {**WHOLE, "model": "other"}),
            "answers as model 'other', asked for 'tiny'",
        ),
        (lambda _: (200, b"<html>"), "no JSON"),
        (lambda _: (200, []), "no JSON object"),
        (lambda _: (200, {"model": "tiny"}), "without choices"),
        (lambda _: (200, {"model": "tiny", "choices": ["x"]}), "without choices"),
    ],
    ids=["500", "hangs", "another model", "a page", "a list", "no choices", "odd choices"],
)
def test_each_is_one_clear_line(
    models: dict[str, Model], url: str, behave: Callable[[int], tuple[int, Any]], message: str
) -> None:
    Endpoint.behave = staticmethod(behave)
    engine = opened(models, url)
    with pytest.raises(UserError, match=message) as caught:
        list(engine.ask([(0, REQUEST)]))
    assert "\n" not in str(caught.value)
    assert url.rpartition("/")[0] in str(caught.value) or caught.value.where
    engine.close()


def test_answers_before_the_breakdown_are_kept(models: dict[str, Model], url: str) -> None:
    """What came in time is given out before the failure is raised: its cell can be stored."""
    Endpoint.behave = staticmethod(lambda n: (200, WHOLE) if n <= 3 else (500, {}))
    engine = opened(models, url)
    answers = []
    with pytest.raises(UserError, match="500"):
        for tag, answer in engine.ask((n, REQUEST) for n in range(6)):
            answers.append((tag, answer.text))
    assert answers == [(n, "ab") for n in range(3)]
    engine.close()


def test_a_server_that_recovers_costs_nothing(models: dict[str, Model], url: str) -> None:
    Endpoint.behave = staticmethod(lambda n: (503, {}) if n % 2 else (200, WHOLE))
    engine = opened(models, url)
    assert [a.text for _, a in engine.ask((n, REQUEST) for n in range(2))] == ["ab", "ab"]
    assert engine.metrics()["tokens_per_second"] > 0
    engine.close()


def test_siblings_of_a_failed_request_are_answered(models: dict[str, Model], url: str) -> None:
    """One of eight at once fails at once; the others, slower, are given out all the same."""

    def behave(number: int) -> tuple[int, Any]:
        if number == 1:
            return 400, {"error": "no"}
        time.sleep(0.3)
        return 200, WHOLE

    Endpoint.behave = staticmethod(behave)
    engine = opened(models, url, in_flight=8, timeout=10)
    answers = []
    with pytest.raises(UserError, match="400"):
        for _, answer in engine.ask((n, REQUEST) for n in range(20)):
            answers.append(answer.text)
    assert answers == ["ab"] * 7
    assert Endpoint.calls == 8, "nothing is asked after a failure"
    engine.close()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a\x00b", "a\x00b"),
        ("a\ud800b", "a?b"),
        ("\udc00", "?"),
        ("가" * 350_000, "가" * 350_000),
    ],
    ids=["NUL", "half a pair", "the other half", "1 MB"],
)
def test_odd_texts_are_stored(
    models: dict[str, Model], url: str, tmp_path: Path, sent: str, kept: str
) -> None:
    choice = {"text": sent, "finish_reason": "stop"}
    Endpoint.behave = staticmethod(lambda _: (200, {"model": "tiny", "choices": [choice]}))
    engine = opened(models, url, timeout=30)
    ((_, answer),) = engine.ask([(0, REQUEST)])
    assert answer.text == kept
    cell = Cell(grid.Run("m", "zpd", 1), 4, "gsm8k", 0, None, ("x",), "abcd")
    row = {
        "item_id": "x",
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "n_prompt_tokens": 3,
        "n_tokens": len(answer.token_ids),
        "logprobs": [],
    }
    Cache(tmp_path).store(cell, [row])
    assert Cache(tmp_path).load(cell) == [row]
    engine.close()


def test_a_server_of_another_model_is_refused(
    models: dict[str, Model], url: str, tmp_path: Path
) -> None:
    checkpoint, settings = models["qwen2"].checkpoint, Settings(base_url=url)
    assert served_model(checkpoint, settings) == ("tiny", False)
    Endpoint.listed = {"root": str(checkpoint)}
    assert served_model(checkpoint, settings) == ("tiny", True)
    shutil.copytree(checkpoint, tmp_path / "copy")
    Endpoint.listed = {"root": str(tmp_path / "copy")}
    assert served_model(checkpoint, settings) == ("tiny", True)
    Endpoint.listed = {"root": str(models["llama"].checkpoint)}
    with pytest.raises(UserError, match="as 'tiny', which is not"):
        served_model(checkpoint, settings)


def test_a_repository_is_compared_by_name(url: str, tmp_path: Path) -> None:
    files.write_manifest(tmp_path, {"origin": "Qwen/Qwen2.5-7B-Instruct@" + "0" * 40})
    settings = Settings(base_url=url)
    Endpoint.listed = {"root": "Qwen/Qwen2.5-7B-Instruct"}
    assert served_model(tmp_path, settings) == ("tiny", True)
    Endpoint.listed = {"root": "Qwen/Qwen2.5-0.5B-Instruct"}
    with pytest.raises(UserError, match=r"0\.5B"):
        served_model(tmp_path, settings)
