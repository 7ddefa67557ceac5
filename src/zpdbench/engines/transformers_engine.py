"""transformers + peft: the reference that the other engines are compared with.

Runs on CPU, CUDA and MPS. Prompts of one adapter are batched with padding on the left; likelihoods
come from one pass over prompt and continuation. Slower than vLLM, and simpler to trust.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

from zpdbench.engines import Adapter, Answer, Request, Settings, Tag, device, engine_version, rates
from zpdbench.engines.tokens import Tokens
from zpdbench.errors import UserError
from zpdbench.text.tokenizer import Spelling

BATCH = 16


class TransformersEngine:
    """See `zpdbench.engines.Engine`. Settings' options: `batch_size`, `device`."""

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        started = time.monotonic()
        try:
            import torch
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            raise UserError(
                f"transformers cannot be imported ({error})",
                where="generations.engine",
                fix="install the serving environment (envs/serve.txt)",
            ) from error
        torch.set_num_threads(settings.threads)
        self.name = engine_version("transformers", settings)
        self.settings = settings
        self.tokens = Tokens(checkpoint)
        self._batch = int(settings.options.get("batch_size", BATCH))
        self._device = device(settings)
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint, dtype=getattr(torch, settings.dtype), local_files_only=True
            )
        except Exception as error:  # transformers raises many kinds for one bad file
            raise UserError(
                f"cannot be loaded ({' '.join(str(error).split())[:200]})",
                where=str(checkpoint),
                fix="delete the checkpoint folder; it is made again",
            ) from error
        self._model: Any = model.to(self._device).eval()
        self._loaded: list[str] = []
        self._counts = dict.fromkeys(("requests", "prompt_tokens", "generated_tokens"), 0)
        self._seconds = {"load": time.monotonic() - started, "answer": 0.0}

    def ask(self, requests: Iterable[tuple[Tag, Request]]) -> Iterator[tuple[Tag, Answer]]:
        """See `Engine.ask`; answers come in the order of requests."""
        import torch

        def kind(pair: tuple[Tag, Request]) -> tuple[Adapter | None, bool, int, float, float]:
            r = pair[1]
            return r.adapter, bool(r.choices), r.max_tokens, r.temperature, r.top_p

        for (adapter, scored, *_), group in groupby(requests, key=kind):
            for batch in _batches(group, self._batch):
                before = time.monotonic()
                with torch.inference_mode(), self._with(adapter):
                    asked = [request for _, request in batch]
                    answers = self._score(asked) if scored else self._generate(asked)
                self._seconds["answer"] += time.monotonic() - before
                for (tag, request), answer in zip(batch, answers, strict=True):
                    self._counts["requests"] += 1
                    self._counts["prompt_tokens"] += len(request.prompt)
                    self._counts["generated_tokens"] += len(answer.token_ids)
                    yield tag, answer

    def metrics(self) -> dict[str, float]:
        """Counts of requests and tokens; seconds to load and answer; tokens a second."""
        return rates(self._counts, self._seconds)

    def close(self, last: bool = False) -> None:
        """Give the model's memory back."""
        self._model = None

    def _with(self, adapter: Adapter | None) -> AbstractContextManager[Any]:
        if adapter is None:
            return self._model.disable_adapter() if self._loaded else nullcontext()
        if adapter.name not in self._loaded:
            from peft import PeftModel

            if self._loaded:
                self._model.load_adapter(adapter.path, adapter_name=adapter.name)
            else:
                self._model = PeftModel.from_pretrained(
                    self._model, adapter.path, adapter_name=adapter.name
                )
            self._model.eval()
            self._loaded.append(adapter.name)
            if len(self._loaded) > self.settings.adapters_in_flight:
                self._model.set_adapter(adapter.name)
                self._model.delete_adapter(self._loaded.pop(0))
        self._model.set_adapter(adapter.name)
        return nullcontext()

    def _score(self, requests: Sequence[Request]) -> list[Answer]:
        """Summed log-likelihood of each choice.

        Choices that differ in their last token only (letters) share a pass. Rows are padded on the
        left, so that what is scored is at the end, and logits are made for those positions only.
        """
        import torch

        sums = [[0.0] * len(r.choices) for r in requests]
        for part in _batches(_passes(requests), self._batch):
            longest = max(len(whole) for whole, *_ in part)
            ids = torch.zeros(len(part), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, (whole, *_) in enumerate(part):
                ids[row, longest - len(whole) :] = torch.tensor(whole)
                mask[row, longest - len(whole) :] = 1
            logits = self._model(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                position_ids=(mask.cumsum(1) - 1).clamp_min(0).to(self._device),
                use_cache=False,
                logits_to_keep=max(forced + 1 for _, forced, *_ in part),
            ).logits
            for row, (_, forced, number, places) in enumerate(part):
                at = logits[row, -(forced + 1) :].float().log_softmax(-1)
                for place in places:
                    choice = torch.tensor(requests[number].choices[place], device=at.device)
                    sums[number][place] = float(at.gather(1, choice.unsqueeze(1)).sum())
        return [Answer(logprobs=tuple(s)) for s in sums]

    def _generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Token by token with a cache; finished rows leave the batch."""
        import torch

        longest = max(len(r.prompt) for r in requests)
        ids = torch.zeros(len(requests), longest, dtype=torch.long, device=self._device)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            ids[row, longest - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, longest - len(request.prompt) :] = 1
        samplers = [_generator(r) for r in requests]
        spellings = [Spelling(self.tokens.tokenizer, r.prompt) for r in requests]
        produced: list[list[int]] = [[] for _ in requests]
        live = list(range(len(requests)))
        cache, positions = None, (mask.cumsum(1) - 1).clamp_min(0)
        while True:
            step = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = step.past_key_values
            chosen = [
                _choose(step.logits[n, -1].float(), requests[row], samplers[row])
                for n, row in enumerate(live)
            ]
            for row, token in zip(live, chosen, strict=True):
                produced[row].append(token)
            keep = [
                n
                for n, row in enumerate(live)
                if not self._ended(requests[row], produced[row], spellings[row])
            ]
            if not keep:
                break
            index = torch.tensor(keep, device=self._device)
            if len(keep) < len(live):
                cache.batch_select_indices(index)
                mask, positions = mask[index], positions[index]
            live = [live[n] for n in keep]
            ids = torch.tensor([[chosen[n]] for n in keep], device=self._device)
            mask = torch.cat([mask, mask.new_ones(len(keep), 1)], 1)
            positions = positions[:, -1:] + 1
        return [
            Answer(*self.tokens.finish(request.prompt, tokens, request.stop, request.max_tokens))
            for request, tokens in zip(requests, produced, strict=True)
        ]

    def _ended(self, request: Request, tokens: Sequence[int], spelling: Spelling) -> bool:
        """Whether the last of `tokens` ends the answer; `spelling` has all others."""
        ends = self.tokens.end_ids | self.tokens.stop_ids(request.stop)
        if len(tokens) >= request.max_tokens or tokens[-1] in ends:
            return True
        new = len(spelling.add(tokens[-1]))
        return any(s in spelling.text[-(new + len(s)) :] for s in request.stop if s)


def _passes(
    requests: Sequence[Request],
) -> Iterator[tuple[tuple[int, ...], int, int, list[int]]]:
    """(ids of a pass, how many are a choice's, the request's number, its choices) of each pass."""
    for number, request in enumerate(requests):
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, choice in enumerate(request.choices):
            alike.setdefault(choice[:-1], []).append(place)
        for forced, places in alike.items():
            yield (*request.prompt, *forced), len(forced), number, places


def _batches(group: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for pair in group:
        batch.append(pair)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _generator(request: Request) -> Any:
    if request.temperature == 0:
        return None
    import torch

    generator = torch.Generator()
    generator.manual_seed(request.seed)
    return generator


def _choose(logits: Any, request: Request, generator: Any) -> int:
    """Greedy, or drawn from the nucleus (Holtzman et al. 2020) at a temperature."""
    if request.temperature == 0:
        return int(logits.argmax())
    import torch

    probabilities = (logits.cpu() / request.temperature).softmax(-1)
    if request.top_p < 1:
        ordered, order = probabilities.sort(descending=True, stable=True)
        # The smallest set of likeliest tokens that reaches top_p, the first always in it.
        ordered[ordered.cumsum(0) - ordered >= request.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(0, order, ordered)
    return int(torch.multinomial(probabilities, 1, generator=generator))
