"""Any server that speaks the OpenAI completions protocol, by TCP or unix socket.

With a vLLM server, adapters are loaded at run time, and likelihoods come from generated positions
as in `vllm_engine`. The server needs `--logits-processors zpdbench.engines.forced:ForcedDecoding`:
for choices of several tokens, and on CPU for right answers of the base beside adapters. With other
servers, likelihoods come from `echo`, and an adapter must be served already, under its content's
name.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files
from zpdbench.engines import Adapter, Answer, Request, Settings, Tag, rates
from zpdbench.engines.choices import paths, sums
from zpdbench.engines.http import Client, RefusedError
from zpdbench.engines.tokens import Tokens
from zpdbench.errors import UserError

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# `zpdbench.engines.forced.KEY`, which cannot be imported without vLLM.
FORCED_KEY = "zpdbench_forced"
SERVER = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 python -m vllm.entrypoints.openai.api_server "
    "--model CHECKPOINT --enable-lora --max-loras {slots} --max-lora-rank {rank} "
    "--logits-processors zpdbench.engines.forced:ForcedDecoding"
)


def server_version(settings: Settings) -> str:
    """What the server says it is: `openai:vllm 0.32.0`, or `openai:` and the model's name.

    Raises:
        UserError: it does not answer.
    """
    client = _client(settings)
    try:
        return f"openai:{_version(client) or _base_model(client, settings).name}"
    finally:
        client.close()


def served_model(checkpoint: Path, settings: Settings) -> tuple[str, bool]:
    """The served base's name, and whether it is known to be the checkpoint's.

    vLLM tells where it has the model from. A folder that is on this machine too is compared by
    content, a repository's name with the checkpoint's; anything else cannot be compared.

    Raises:
        UserError: it is another model, or the server does not answer.
    """
    client = _client(settings)
    try:
        served = _base_model(client, settings)
    finally:
        client.close()
    same = _same_model(served.root, checkpoint)
    if same is False:
        raise UserError(
            f"serves {served.root} as {served.name!r}, which is not {checkpoint}",
            where=settings.base_url or "",
            fix=f"start the server with --model {checkpoint}",
        )
    return served.name, bool(same)


def _same_model(root: str, checkpoint: Path) -> bool | None:
    """Whether what a server names as its model is the checkpoint; None if that cannot be told."""
    folder = Path(root)
    if root and folder.is_dir():
        if folder.resolve() == checkpoint.resolve():
            return True
        weights = {p.name: files.sha256_file(p) for p in folder.glob("*.safetensors")}
        own = {p.name: files.sha256_file(p) for p in checkpoint.glob("*.safetensors")}
        return weights == own if weights else None
    origin = str(files.read_manifest(checkpoint).get("origin", "")).partition("@")[0]
    if _REPOSITORY.fullmatch(root) and _REPOSITORY.fullmatch(origin):
        return root == origin
    return None


class OpenAIEngine:
    """See `zpdbench.engines.Engine`.

    Settings' options: `in_flight` (requests at once), `requests_per_second`, `timeout` (seconds),
    `retries`, `model` (the served base's name; else the only one served), `plain` (treat as a
    server that is not vLLM).
    """

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        started = time.monotonic()
        self.settings = settings
        self.tokens = Tokens(checkpoint)
        self._client = _client(settings)
        version = _version(self._client)
        self._is_vllm = version is not None and not settings.options.get("plain")
        served = _base_model(self._client, settings)
        self.model, length = served.name, served.length
        self.name = f"openai:{version or self.model}"
        if length is not None and length < settings.max_model_len:
            raise UserError(
                f"serves {length} tokens of context, {settings.max_model_len} are needed",
                where=settings.base_url or "",
                fix=f"start the server with --max-model-len {settings.max_model_len}",
            )
        self._in_flight = int(settings.options.get("in_flight", 32))
        self._served: set[str] = set()
        self._prepared = False
        self._counts = dict.fromkeys(("requests", "prompt_tokens", "generated_tokens"), 0)
        self._seconds = {"load": time.monotonic() - started, "answer": 0.0}

    def ask(self, requests: Iterable[tuple[Tag, Request]]) -> Iterator[tuple[Tag, Answer]]:
        """See `Engine.ask`; after a failure, what else was under way is answered first."""
        source = iter(requests)
        held: tuple[Any, Request] | None = None
        users: dict[str, int] = {}
        running: dict[Future[Answer], tuple[Any, Request]] = {}
        failure: UserError | None = None
        before = time.monotonic()
        pool = ThreadPoolExecutor(self._in_flight)
        try:
            while True:
                while failure is None and len(running) < self._in_flight:
                    held = held or next(source, None)
                    if held is None:
                        break
                    tag, request = held
                    try:
                        if not self._admit(request.adapter, users):
                            break
                    except UserError as error:
                        failure = error
                        break
                    held = None
                    running[pool.submit(self._one, request)] = (tag, request)
                if not running:
                    if failure is not None:
                        raise failure
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    tag, request = running.pop(future)
                    try:
                        answer = future.result()
                    except UserError as error:
                        # What is under way may be answered yet, and then counts.
                        failure = failure or error
                        continue
                    self._release(request.adapter, users)
                    self._counts["requests"] += 1
                    self._counts["prompt_tokens"] += len(request.prompt)
                    self._counts["generated_tokens"] += len(answer.token_ids)
                    yield tag, answer
        finally:
            pool.shutdown(cancel_futures=True)
            self._seconds["answer"] += time.monotonic() - before

    def metrics(self) -> dict[str, float]:
        """Counts of requests and tokens; seconds to connect and answer; tokens a second."""
        return rates(self._counts, self._seconds)

    def forget(self) -> None:
        """Empty the server's prefix cache, where it lets that be done (see docs/benchmarks.md)."""
        if self._is_vllm:
            with suppress(RefusedError):
                self._client.call("POST", "/reset_prefix_cache", root=True)

    def close(self, last: bool = False) -> None:
        """Unload what was loaded, and close the connection."""
        for name in sorted(self._served):
            self._unload(name)
        self._client.close()

    # -- adapters ---------------------------------------------------------------------------------

    def _admit(self, adapter: Adapter | None, users: dict[str, int]) -> bool:
        """Count a request in; False if its adapter must wait for another's to be done."""
        if adapter is None:
            return True
        if adapter.name not in users:
            limit = self.settings.adapters_in_flight
            if len(users) >= limit:
                return False
            while len(self._served) >= limit:
                self._unload(min(self._served - users.keys()))
            self._load(adapter)
        users[adapter.name] = users.get(adapter.name, 0) + 1
        return True

    def _release(self, adapter: Adapter | None, users: dict[str, int]) -> None:
        if adapter is None:
            return
        users[adapter.name] -= 1
        if users[adapter.name] == 0:
            del users[adapter.name]

    def _load(self, adapter: Adapter) -> None:
        if adapter.name in self._served or not self._is_vllm:
            return
        if not self._prepared:
            # A CPU server without our processor would add adapters to the base's rows, silently.
            self._score(Request((min(self.tokens.end_ids),), choices=((1, 2),)))
            self._prepared = True
        body = {"lora_name": adapter.name, "lora_path": str(adapter.path.resolve())}
        try:
            self._client.call("POST", "/load_lora_adapter", body)
        except RefusedError as error:
            # The name is the content's, so what is there under it already is the same adapter.
            if "already" not in error.message.lower():
                raise UserError(
                    f"does not load the adapter {adapter.path} ({error})",
                    where=self.settings.base_url or "",
                    fix="start it on a machine that sees this folder, with "
                    + SERVER.format(
                        slots=self.settings.adapters_in_flight + 1, rank=self.settings.max_rank
                    ),
                ) from error
        self._served.add(adapter.name)

    def _unload(self, name: str) -> None:
        # Nothing depends on its success: a server drops unused adapters itself.
        with suppress(RefusedError, UserError):
            self._client.call("POST", "/unload_lora_adapter", {"lora_name": name})
        self._served.discard(name)

    # -- one request ------------------------------------------------------------------------------

    def _one(self, request: Request) -> Answer:
        if not request.choices:
            return self._generate(request)
        return self._score(request) if self._is_vllm else self._score_by_echo(request)

    def _generate(self, request: Request) -> Answer:
        body: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if request.stop:
            # The protocol's own limit; what stops later is cut off here all the same.
            body["stop"] = list(request.stop) if self._is_vllm else list(request.stop[:4])
        if request.temperature > 0:
            body["seed"] = request.seed
        if self._is_vllm:
            body |= {
                "return_token_ids": True,
                "stop_token_ids": sorted(self.tokens.end_ids | self.tokens.stop_ids(request.stop)),
                "include_stop_str_in_output": False,
                # The server's generation_config must not change what is asked.
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
            }
        choice = self._complete(request, body)
        stopped = choice.get("finish_reason") == "stop"
        ids = choice.get("token_ids")
        if isinstance(ids, list):
            met = choice.get("stop_reason")
            if isinstance(met, str) and met not in self.tokens.tokenizer.spell(request.prompt, ids):
                raise UserError(
                    f"met the stop string {met!r}, which the checkpoint's tokenizer does not spell",
                    where=self.settings.base_url or "",
                    fix="set generations.engine: vllm, which reads tokenizer.json as it is",
                )
            text, kept, reason = self.tokens.finish(
                request.prompt, ids, request.stop, request.max_tokens, stopped=stopped
            )
            return Answer(text, kept, reason)
        # JSON can hold half a surrogate pair, which no file and no tokenizer takes.
        text = str(choice.get("text", "")).encode("utf-8", "replace").decode("utf-8")
        cuts = [at for s in request.stop if (at := text.find(s)) >= 0]
        reason = "stop" if stopped or cuts else "length"
        text = text[: min(cuts)] if cuts else text
        ids = self.tokens.tokenizer.continued(request.prompt, text)
        return Answer(text, tuple(ids), reason)

    def _score(self, request: Request) -> Answer:
        answers = {}
        for path in paths(request.choices):
            body: dict[str, Any] = {
                "max_tokens": len(path.forced) + 1,
                "temperature": 0,
                "ignore_eos": True,
                "logprobs": len(path.wanted),
                "logprob_token_ids": list(path.wanted),
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
            }
            if path.forced:
                body["vllm_xargs"] = {FORCED_KEY: list(path.forced)}
            choice = self._complete(request, body)
            ids = tuple(choice.get("token_ids") or ())
            if ids[: len(path.forced)] != path.forced:
                raise UserError(
                    "does not generate the tokens that are to be scored",
                    where=self.settings.base_url or "",
                    fix="start the server with "
                    "--logits-processors zpdbench.engines.forced:ForcedDecoding",
                )
            answers[path.forced] = self._positions(choice, path.wanted, len(path.forced) + 1)
        return Answer(logprobs=sums(request.choices, answers))

    def _positions(
        self, choice: Mapping[str, Any], wanted: Sequence[int], count: int
    ) -> list[dict[int, float]]:
        try:
            found = [
                {int(name.removeprefix("token_id:")): float(value) for name, value in at.items()}
                for at in choice["logprobs"]["top_logprobs"]
            ]
            return [{token: found[i][token] for token in wanted} for i in range(count)]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._unusable("without the log-probabilities that were asked for") from error

    def _score_by_echo(self, request: Request) -> Answer:
        totals = []
        for choice in request.choices:
            whole = Request((*request.prompt, *choice), request.adapter)
            body = {"max_tokens": 0, "temperature": 0, "echo": True, "logprobs": 1}
            answer = self._complete(whole, body)
            try:
                values = answer["logprobs"]["token_logprobs"]
                if len(values) < len(whole.prompt):
                    raise ValueError
                totals.append(sum(map(float, values[len(request.prompt) : len(whole.prompt)])))
            except (KeyError, TypeError, ValueError) as error:
                raise self._unusable("without log-probabilities of the prompt (`echo`)") from error
        return Answer(logprobs=tuple(totals))

    def _complete(self, request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
        name = request.adapter.name if request.adapter else self.model
        try:
            response = self._client.call(
                "POST", "/completions", {"model": name, "prompt": list(request.prompt), **body}
            )
        except RefusedError as error:
            raise UserError(
                f"refuses a request for {name}: {error}",
                where=self.settings.base_url or "",
                fix="look at the server's log and at generations in the configuration",
            ) from error
        if not isinstance(response, dict):
            raise self._unusable("that is no JSON object")
        if response.get("model") != name:
            raise UserError(
                f"answers as model {response.get('model')!r}, asked for {name!r}",
                where=self.settings.base_url or "",
                fix="give the address of the server that serves this model",
            )
        try:
            choice = response["choices"][0]
            choice.get("text")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._unusable("without choices") from error
        return dict(choice)

    def _unusable(self, what: str) -> UserError:
        return UserError(
            f"gave an answer {what}",
            where=self.settings.base_url or "",
            fix="use a vLLM server, or generations.engine: vllm",
        )


def _client(settings: Settings) -> Client:
    if settings.base_url is None:
        raise UserError(
            "no address of the server", where="generations.base_url", fix="give http://HOST:PORT/v1"
        )
    options = settings.options
    return Client(
        settings.base_url,
        timeout=float(options.get("timeout", 300.0)),
        retries=int(options.get("retries", 4)),
        requests_per_second=options.get("requests_per_second"),
        key=os.environ.get("OPENAI_API_KEY"),
    )


def _version(client: Client) -> str | None:
    """`vllm VERSION` of a vLLM server, None of another."""
    try:
        found = client.call("GET", "/version", root=True)
    except RefusedError:
        return None
    return f"vllm {found['version']}" if isinstance(found, dict) and "version" in found else None


@dataclass(frozen=True)
class _Served:
    """A served base: its name; its context's length and where it is from, as far as told."""

    name: str
    length: int | None
    root: str


def _base_model(client: Client, settings: Settings) -> _Served:
    """The served base model."""
    wanted = settings.options.get("model")
    try:
        models = client.call("GET", "/models")["data"]
        # vLLM lists adapters too, each with its base as parent.
        bases = {str(m["id"]): m for m in models if not m.get("parent")}
    except (RefusedError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"does not list its models ({error})",
            where=settings.base_url or "",
            fix="give the address of an OpenAI-compatible server, with its /v1",
        ) from error
    if wanted is not None and wanted not in bases:
        raise UserError(
            f"does not serve {wanted!r}",
            where=settings.base_url or "",
            fix=f"it serves {', '.join(sorted(bases)) or 'nothing'}",
        )
    if wanted is None and len(bases) != 1:
        raise UserError(
            f"serves {len(bases)} models",
            where=settings.base_url or "",
            fix="say which by generations.server.model, one name or one a model",
        )
    name = str(wanted) if wanted is not None else next(iter(bases))
    length = bases[name].get("max_model_len")
    root = str(bases[name].get("root") or "")
    return _Served(name, None if length is None else int(length), root)
