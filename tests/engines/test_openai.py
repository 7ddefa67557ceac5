"""The openai engine against vLLM's own server, by TCP and by unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import (
    TOLERANCE,
    Model,
    assert_adapters_act,
    assert_equal_answers,
    mixed_requests,
)
from tests.engines.test_vllm import reference
from zpdbench.engines import Request, Settings, engine_version, open_engine
from zpdbench.engines.http import Client
from zpdbench.errors import UserError

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

IN_FLIGHT = 2


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def serve(model: Model, log: Path, *options: str, lora: bool = True) -> subprocess.Popen[bytes]:
    adapters = [
        "--enable-lora", "--max-loras", str(IN_FLIGHT + 1), "--max-lora-rank", "8",
        "--logits-processors", "zpdbench.engines.forced:ForcedDecoding",
    ]  # fmt: skip
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model.checkpoint), "--served-model-name", "tiny", "--dtype", "float32",
        "--enforce-eager", "--max-model-len", "256", "--block-size", "32",
        "--kv-cache-memory-bytes", "64M", *(adapters if lora else []), *options,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "TORCHDYNAMO_DISABLE": "1",
    }
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out)


@contextmanager
def running(process: subprocess.Popen[bytes], url: str, log: Path) -> Iterator[None]:
    """Wait until the server answers; stop it in the end."""
    try:
        client = Client(url, retries=0, timeout=5)
        deadline = time.monotonic() + 900
        while True:
            try:
                client.call("GET", "/models")
                break
            except UserError:
                text = log.read_text("utf-8", "replace")
                assert process.poll() is None, text[-3000:]
                assert time.monotonic() < deadline, text[-3000:]
                time.sleep(0.5)
        yield
    finally:
        process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=["tcp", "unix"])
def server(
    request: pytest.FixtureRequest, models: dict[str, Model], tmp_path_factory: Any
) -> Iterator[tuple[Model, str]]:
    model = models["qwen2" if request.param == "tcp" else "llama"]
    folder = tmp_path_factory.mktemp("s")
    if request.param == "tcp":
        port = _free_port()
        url, options = f"http://127.0.0.1:{port}/v1", ("--host", "127.0.0.1", "--port", str(port))
    else:
        url, options = f"unix:{folder}/s", ("--uds", f"{folder}/s")
    process = serve(model, folder / "log", *options)
    with running(process, url, folder / "log"):
        yield model, url


def settings(url: str, **options: Any) -> Settings:
    return Settings(max_model_len=256, adapters_in_flight=IN_FLIGHT, base_url=url, options=options)


def test_answers_equal_transformers_and_peft(server: tuple[Model, str]) -> None:
    model, url = server
    engine: Any = open_engine("openai", model.checkpoint, settings(url))
    requests = mixed_requests(model, prompts=5)
    answers = dict(engine.ask(requests))
    assert_equal_answers(requests, answers, reference(model, engine.tokens, requests))
    assert engine.metrics()["requests"] == len(requests)
    assert engine.name == engine_version("openai", settings(url))
    assert engine.name.startswith("openai:vllm ")
    engine.close()
    served = Client(url).call("GET", "/models")["data"]
    assert [m["id"] for m in served] == ["tiny"], "adapters are unloaded in the end"


def test_trained_models_answer_alike(trained: Model, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("t")
    url = f"unix:{folder}/s"
    process = serve(trained, folder / "log", "--uds", f"{folder}/s")
    with running(process, url, folder / "log"):
        engine: Any = open_engine("openai", trained.checkpoint, settings(url))
        requests = mixed_requests(trained, prompts=4)
        answers = dict(engine.ask(requests))
        assert_equal_answers(requests, answers, reference(trained, engine.tokens, requests))
        assert_adapters_act(requests, answers)
        engine.close()
        # Text from any server: one that sends no ids may leave out bytes of no whole character.
        engine = open_engine("openai", trained.checkpoint, settings(url, plain=True))
        asked = [(n, r) for n, r in requests if r.adapter is None and not r.choices]
        whole = [n for n, _ in asked if answers[n].text and "\ufffd" not in answers[n].text]
        assert whole
        plain = dict(engine.ask(asked))
        assert {n: plain[n].text for n in whole} == {n: answers[n].text for n in whole}
        engine.close()


def test_another_model_is_refused(server: tuple[Model, str]) -> None:
    model, url = server
    with pytest.raises(UserError, match="does not serve 'other'") as caught:
        open_engine("openai", model.checkpoint, settings(url, model="other"))
    assert caught.value.fix == "it serves tiny"


def test_too_short_a_context_is_refused(server: tuple[Model, str]) -> None:
    model, url = server
    with pytest.raises(UserError, match="256 tokens of context, 4096 are needed"):
        open_engine("openai", model.checkpoint, Settings(max_model_len=4096, base_url=url))


def test_a_request_that_does_not_fit_is_one_clear_line(server: tuple[Model, str]) -> None:
    model, url = server
    engine = open_engine("openai", model.checkpoint, settings(url))
    with pytest.raises(UserError, match="refuses a request for tiny: 400"):
        list(engine.ask([(0, Request(tuple(range(5, 300)), max_tokens=10))]))
    engine.close()


def test_a_server_without_adapters_or_our_processor(
    models: dict[str, Model], tmp_path_factory: Any
) -> None:
    model = models["qwen2"]
    folder = tmp_path_factory.mktemp("b")
    url = f"unix:{folder}/s"
    process = serve(model, folder / "log", "--uds", f"{folder}/s", lora=False)
    with running(process, url, folder / "log"):
        requests = [
            (n, r) for n, r in mixed_requests(model, prompts=4) if not r.adapter and r.choices
        ]
        # By echo, as from any server.
        engine: Any = open_engine("openai", model.checkpoint, settings(url, plain=True))
        answers = dict(engine.ask(requests))
        for tag, answer in reference(model, engine.tokens, requests).items():
            assert answers[tag].logprobs == pytest.approx(answer.logprobs, abs=TOLERANCE)
        engine.close()
        engine = open_engine("openai", model.checkpoint, settings(url))
        with pytest.raises(UserError, match="does not generate the tokens") as caught:
            list(engine.ask([(0, Request((5, 6, 7), choices=((8, 9), (10, 11))))]))
        assert "--logits-processors" in caught.value.fix
        adapted = [(0, Request((5, 6, 7), model.adapters[0], max_tokens=4))]
        with pytest.raises(UserError, match="does not generate the tokens"):
            list(engine.ask(adapted))
        engine.close()
