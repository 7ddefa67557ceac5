"""`zpdbench generate-chunk`: one engine answers a chunk's items for all its adapters and the base.

Cells that the cache holds are not asked again. The others are asked in one stream, adapter after
adapter, so that the engine's batch is always full, cells finish early and requests with a common
prefix follow each other; each cell is stored as soon as its last answer is in.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import arithmetic, devices, files, grid, resources, startup
from zpdbench import study as studies
from zpdbench.engines import (
    Adapter,
    Answer,
    Engine,
    Request,
    Settings,
    Tag,
    engine_version,
    open_engine,
)
from zpdbench.engines.adapters import checkpoint_shapes, read_adapter, read_full
from zpdbench.errors import UserError
from zpdbench.generations import trust
from zpdbench.generations.cells import (
    Cache,
    Cell,
    Prompt,
    Row,
    answer_schema,
    cell_key,
    sampling_seed,
)
from zpdbench.progress import track
from zpdbench.text.form import PLAIN

if TYPE_CHECKING:
    from zpdbench.engines.tokens import Tokens

PROBES = 8
"""Prompts asked once more, alone, at most."""
PROBE_SHARE = 0.05
"""Of a job's work may go to them, but for one prompt of each kind."""
PROBE_TOKENS = 2048
"""So much may go to them in any case: a small job asks all."""
ALONE = 16
"""Tokens of a prompt that cost as much as one generated alone, as one reads all weights anew."""
CANARY_ITEMS = 8
"""Items a benchmark that the base is asked for comparison, where it is not in the chunk itself."""


def main(args: argparse.Namespace) -> None:
    """Write `args.out`: every answer of chunk `args.chunk` of model `args.model`."""
    study = studies.resolve(studies.load(args.study))
    members = study.chunks.get((args.model, args.chunk))
    if members is None:
        known = ", ".join(sorted({c for m, c in study.chunks if m == args.model}))
        raise UserError(
            f"model {args.model!r} has no chunk {args.chunk!r}",
            where="study",
            fix=f"one of {known}" if known else f"models: {', '.join(study.models)}",
        )
    arithmetic.choose(study.computes)
    if study.generations.engine == "vllm":
        from zpdbench.engines.vllm_engine import set_environment

        set_environment(study.generations.threads)
        # For sound and for losses of object detection; a second of a small job.
        startup.leave_out("scipy")
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(study.generations.threads))
        os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    job = Job(study, args.model, members, Path(args.checkpoint), args.adapters, args.items)
    job.run(Path(args.out))


@dataclass(frozen=True)
class _Asked:
    """A request's place: which cell, which of its items."""

    cell: Cell
    item_id: str


class Job:
    """One chunk's work: planned from the study and the files, then run.

    Raises:
        UserError: whatever is wrong with checkpoint, adapters or items, before the engine starts.
    """

    def __init__(
        self,
        study: studies.Study,
        model: str,
        members: Sequence[grid.Run],
        checkpoint: Path,
        adapters: Sequence[str],
        items: Sequence[str],
    ) -> None:
        self.started = time.monotonic()
        self.study, self.model, self.members = study, model, list(members)
        self.checkpoint = checkpoint
        self.section = study.generations
        self.cache = Cache()
        self.full = study.training.method == "full"
        shapes = checkpoint_shapes(checkpoint)
        self.base = files.check_manifest(checkpoint)["digest"]
        self.adapters = self._read_adapters(adapters, shapes)
        self.prompts = self._read_items(items)
        self.settings = self._settings()
        self.engine_name = engine_version(self.section.engine, self.settings)
        self.served = self._served_model()
        self.cells = [cell for run in self.members for cell in self._cells(run)]
        self.canary = self._canary()
        self.rows: dict[str, dict[str, Row]] = {}
        self._engine: Engine | None = None
        self._serving = self.checkpoint
        self._metrics: list[dict[str, float]] = []
        self.probe: trust.Probe | None = None

    # -- planning ---------------------------------------------------------------------------------

    def _read_adapters(
        self, folders: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[tuple[grid.Run, int], Adapter]:
        by_run: dict[tuple[str, str], Path] = {}
        for folder in map(Path, folders):
            by_run[folder.parent.name, folder.name] = folder
        result = {}
        for run in self.members:
            if run.condition == grid.BASE:
                continue
            where = by_run.get((run.condition, f"s{run.seed}"))
            if where is None:
                raise UserError(
                    f"no adapters of {run.condition}/s{run.seed} were given",
                    where="--adapters",
                    fix=f"give {self.study.paths.adapter(*run)}",
                )
            trained_on = files.check_manifest(where).get("base")
            if trained_on not in (None, self.base):
                raise UserError(
                    "was trained on another base checkpoint",
                    where=str(where),
                    fix="delete the folder; it is trained again",
                )
            for step in self.study.served_steps:
                folder = where / grid.adapter_step(step)
                result[run, step] = (
                    read_full(folder, dict(shapes))
                    if self.full
                    else read_adapter(folder, dict(shapes), self.study.training.lora.rank)
                )
        return result

    def _read_items(self, paths: Sequence[str]) -> dict[str, dict[str, Prompt]]:
        from zpdbench.benchmarks import items
        from zpdbench.engines.tokens import Tokens

        self.tokens: Tokens = Tokens(
            self.checkpoint,
            apply_chat_template=any(self._chat(name) for name in self.study.benchmarks),
            date=self.study.template_date,
        )
        found = {}
        for path in paths:
            rows = items.read(path)
            if not rows:
                raise UserError("no items in it", where=str(path), fix="delete it")
            prompts = {row["item_id"]: self._prompt(row, path) for row in rows}
            if len(prompts) < len(rows):
                raise UserError("two items have one id", where=str(path), fix="delete it")
            found[str(rows[0]["benchmark"])] = prompts
        for name in self.study.benchmarks:
            if name not in found:
                raise UserError(
                    f"no items of {name} were given",
                    where="--items",
                    fix=f"give {self.study.paths.items(name)}",
                )
        return {name: found[name] for name in self.study.benchmarks}

    def _chat(self, benchmark: str) -> bool:
        return self.study.form(benchmark) != PLAIN

    def _prompt(self, row: Mapping[str, Any], path: str) -> Prompt:
        where = f"{path}: item {row['item_id']!r}"
        messages = json.loads(row["messages"] or "[]")
        text = self.tokens.render(row["prompt"], messages) if messages else row["prompt"]
        choices: list[list[int]] = []
        if row["kind"] == "choice":
            ids, choices = self.tokens.encode_choices(text, row["choices"])
            if not choices or not all(choices):
                raise UserError("a choice is empty", where=where, fix="give each choice a text")
            if len(set(map(tuple, choices))) < len(choices):
                raise UserError(
                    "two of its choices have the same tokens, so that nothing tells them apart",
                    where=where,
                    fix="mend the item, or ask a model whose tokenizer tells them apart",
                )
        else:
            ids = self.tokens.encode(text)
        if mixed := self.tokens.mixed(row["stop"]):
            raise UserError(
                f"the stop string {mixed!r} holds a special token and more, which no text shows",
                where=where,
                fix="let the definition stop at the token alone",
            )
        if not ids:
            raise UserError("has an empty prompt", where=where, fix="give it a text")
        prompt = Prompt(
            benchmark=row["benchmark"],
            item_id=row["item_id"],
            task=row["task"],
            digest=row["digest"],
            interim=row["interim"],
            ids=tuple(ids),
            choices=tuple(map(tuple, choices)),
            stop=tuple(row["stop"]),
            max_tokens=row["max_tokens"],
        )
        length = prompt.request(None, temperature=0, top_p=1, seed=0).length
        if length > self.section.max_model_len:
            raise UserError(
                f"needs {length} tokens, prompt and answer",
                where=where,
                fix=f"raise generations.max_model_len ({self.section.max_model_len}), "
                "or ask for fewer shots or tokens",
            )
        return prompt

    def _settings(self) -> Settings:
        longest = max(
            p.request(None, temperature=0, top_p=1, seed=0).length
            for prompts in self.prompts.values()
            for p in prompts.values()
        )
        # Room in steps of 64: the cache is sized by it, and it changes no answer.
        length = min(self.section.max_model_len, -(-(longest + 1) // 64) * 64)
        return Settings(
            dtype=self.section.dtype,
            max_model_len=max(length, longest),
            adapters_in_flight=max(1, min(self.section.adapters_in_flight, len(self.adapters))),
            max_rank=self.study.training.lora.rank,
            kv_cache_gib=self.section.kv_cache_gib,
            threads=self.section.threads,
            seed=self.section.seed,
            arithmetic=self.study.computes,
            base_url=self.section.endpoint(self.model)[0],
            options=self._options(),
        )

    def _options(self) -> dict[str, Any]:
        if self.section.engine == "openai":
            served = self.section.endpoint(self.model)[1]
            return {**self.section.server.model_dump(), "model": served}
        if self.section.engine == "transformers":
            return {"device": self._device()}
        lora = bool(self.adapters) and not self.full
        options: dict[str, Any] = {} if lora else {"lora": False}
        # A model whose weights need several GPUs is split over them.
        if (devices_wanted := resources.serve_gpus(self.study, self.model)) > 1:
            options["tensor_parallel_size"] = devices_wanted
        return options

    def _device(self, count: int = 1) -> str:
        """The model's device; not in silence the CPU of a node without GPU, where it needs one."""
        wanted = resources.wants_gpu(self.study, self.model)
        or_cpu = not resources.needs_gpu(self.study, self.model)
        return devices.find(wanted, count, or_cpu=or_cpu)

    def _served_model(self) -> str:
        """The served model's name, which is part of what a cell is; empty without a server."""
        if self.section.engine != "openai":
            return ""
        from zpdbench.engines.openai_engine import served_model

        name, compared = served_model(self.checkpoint, self.settings)
        if not compared:
            _say(
                f"{self.model}: the server does not tell where it has {name!r} from; it is taken "
                f"for {self.checkpoint}"
            )
        return name

    def _cells(self, run: grid.Run) -> Iterator[Cell]:
        steps = [0] if run.condition == grid.BASE else self.study.served_steps
        for step in steps:
            final = step == steps[-1]
            for name, prompts in self.prompts.items():
                asked = [p for p in prompts.values() if final or p.interim]
                for sample in range(self.study.benchmarks[name].samples) if asked else ():
                    yield self._cell(run, step, name, asked, sample)

    def _cell(
        self, run: grid.Run, step: int, name: str, asked: Sequence[Prompt], sample: int
    ) -> Cell:
        adapter = self.adapters.get((run, step))
        section = self.study.benchmarks[name]
        sampled = section.temperature > 0 and not asked[0].choices
        key = cell_key(
            engine=self.engine_name,
            dtype=self.section.dtype,
            base=self.base,
            adapter=adapter.digest if adapter else "",
            template=self.tokens.template() if self._chat(name) else "",
            items=[p.digest for p in asked],
            sampling=(
                {
                    "temperature": section.temperature,
                    "top_p": section.top_p,
                    "seed": self.section.seed,
                }
                if sampled
                else {}
            ),
            sample=sample if sampled else 0,
            served=self.served,
        )
        return Cell(run, step, name, sample, adapter, tuple(p.item_id for p in asked), key)

    def _canary(self) -> list[Cell]:
        """The base's cells that adapters are compared with."""
        base = grid.Run(self.model, grid.BASE, 0)
        if base in self.members:
            return [c for c in self.cells if c.run == base and c.sample == 0]
        if not self.adapters:
            return []
        result = []
        for name, prompts in self.prompts.items():
            # Items asked at every step come first, so that every step has some to compare.
            ranked = sorted(prompts.values(), key=lambda p: not p.interim)
            result.append(self._cell(base, 0, name, ranked[:CANARY_ITEMS], 0))
        return result

    # -- answering --------------------------------------------------------------------------------

    def run(self, out: Path) -> None:
        """Answer what the cache does not hold, check, and write the chunk."""
        needed = {cell.key: cell for cell in [*self.canary, *self.cells]}
        for key, cell in needed.items():
            rows = self.cache.load(cell)
            if rows is not None:
                self.rows[key] = {row["item_id"]: row for row in rows}
        missing = [cell for key, cell in needed.items() if key not in self.rows]
        _say(
            f"{self.model} {out.stem}: {len(needed)} cells, {len(needed) - len(missing)} found in "
            f"the cache, {len(missing)} to answer ({sum(len(c.items) for c in missing)} requests)"
        )
        try:
            if missing:
                self._answer(missing)
            self._check_adapters()
            self._probe()
            metrics = self._measured(answered=bool(missing))
        finally:
            self._stop(last=startup.ends_here)
        self._write(out)
        timing = {
            "seconds": round(time.monotonic() - self.started, 3),
            "cells": len(needed),
            "cells_from_cache": len(needed) - len(missing),
            "engine": {"name": self.engine_name, **metrics},
            "batch_invariance": vars(self.probe) if self.probe else None,
        }
        files.write_text(files.beside(out, ".timing.json"), json.dumps(timing, indent=1) + "\n")

    def _measured(self, *, answered: bool) -> dict[str, float]:
        """What the engine measured; where all was found, what it measured when it answered."""
        path = self._kept("metric")
        metrics = _added([*self._metrics, *([self._engine.metrics()] if self._engine else [])])
        if answered:
            files.write_text(path, files.canonical_json(metrics) + "\n")
            return metrics
        try:
            return dict(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return metrics

    def _kept(self, what: str) -> Path:
        """Where the cache keeps what was found about these cells together."""
        key = files.digest(
            [what, PROBES, PROBE_SHARE, PROBE_TOKENS, sorted({c.key for c in self.cells})]
        )
        return self.cache.folder.parent / f"{what}s" / f"{key}.json"

    def engine(self, cell: Cell) -> Engine:
        """The engine that answers a cell, started when it is first needed.

        Runs that trained all weights have one each, the base has its own: one at a time.
        """
        checkpoint = cell.adapter.path if cell.adapter and self.full else self.checkpoint
        if self._engine is not None and checkpoint != self._serving:
            self._stop()
        if self._engine is None:
            if self.section.engine != "openai" and resources.wants_gpu(self.study, self.model):
                self._device(resources.serve_gpus(self.study, self.model))
            self._serving = checkpoint
            self._engine = open_engine(self.section.engine, checkpoint, self.settings)
        return self._engine

    def _stop(self, last: bool = False) -> None:
        if self._engine is not None:
            self._metrics.append(self._engine.metrics())
            self._engine.close(last)
            self._engine = None
            if not last:
                gc.collect()

    def _asked(
        self, cell: Cell, requests: Iterable[tuple[Tag, Request]]
    ) -> Iterator[tuple[Tag, Answer]]:
        """A cell's engine's answers; whatever breaks in it is one clear line.

        Raises:
            UserError: the engine failed.
        """
        try:
            yield from self.engine(cell).ask(requests)
        except UserError:
            raise
        except Exception as error:  # engines raise many kinds: out of memory, dead workers
            told = " ".join(str(error).split())[:300]
            raise UserError(
                f"the engine failed ({type(error).__name__}: {told})",
                where=f"generations.engine: {self.section.engine}, model {self.model}",
                fix="finished cells are kept: run again; if memory ran out, lower kv_cache_gib, "
                "adapters_in_flight or max_model_len",
            ) from error

    def _request(self, cell: Cell, prompt: Prompt) -> Request:
        section = self.study.benchmarks[cell.benchmark]
        return prompt.request(
            None if self.full else cell.adapter,
            temperature=section.temperature,
            top_p=section.top_p,
            seed=sampling_seed(self.section.seed, prompt.digest, cell.sample),
        )

    def _requests(self, cells: Sequence[Cell]) -> Iterator[tuple[_Asked, Request]]:
        for cell in cells:
            prompts = [self.prompts[cell.benchmark][name] for name in cell.items]
            # Neighbours share their prefixes, which the engine then computes once.
            for prompt in sorted(prompts, key=lambda p: p.ids):
                yield _Asked(cell, prompt.item_id), self._request(cell, prompt)

    def _answer(self, cells: Sequence[Cell]) -> None:
        self.engine(cells[0])
        partial: dict[str, dict[str, Row]] = {cell.key: {} for cell in cells}
        # How long the texts get is not known before; the prompts' tokens are, and they are most.
        total = sum(len(self.prompts[c.benchmark][name].ids) for c in cells for name in c.items)
        done = tokens = made = 0
        begun = time.monotonic()
        with track(f"generate {self.model}", total, "prompt tokens") as bar:
            for asked, answer in self._answers(cells):
                cell, rows = asked.cell, partial[asked.cell.key]
                row = self._row(cell, asked.item_id, answer)
                rows[asked.item_id] = row
                tokens += row["n_prompt_tokens"] + row["n_tokens"]
                made += row["n_tokens"]
                if len(rows) == len(cell.items):
                    ordered = {name: rows[name] for name in cell.items}
                    self.cache.store(cell, list(ordered.values()))
                    self.rows[cell.key] = ordered
                    done += 1
                rate = tokens / max(time.monotonic() - begun, 1e-9)
                bar.advance(
                    row["n_prompt_tokens"],
                    f"{made:,} generated, {rate:,.0f} tokens/s, {done}/{len(cells)} cells, "
                    f"{cell.title}",
                )

    def _answers(self, cells: Sequence[Cell]) -> Iterator[tuple[_Asked, Answer]]:
        """All answers, from one engine, or from one after the other where weights differ."""
        if not self.full:
            yield from self._asked(cells[0], self._requests(cells))
            return
        by_weights: dict[str, list[Cell]] = {}
        for cell in cells:
            by_weights.setdefault(cell.adapter.digest if cell.adapter else "", []).append(cell)
        for own in by_weights.values():
            yield from self._asked(own[0], self._requests(own))

    def _row(self, cell: Cell, item_id: str, answer: Answer) -> Row:
        prompt = self.prompts[cell.benchmark][item_id]
        return {
            "item_id": item_id,
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "n_prompt_tokens": len(prompt.ids),
            "n_tokens": len(answer.token_ids),
            "logprobs": list(answer.logprobs),
        }

    # -- checks -----------------------------------------------------------------------------------

    def _check_adapters(self) -> None:
        base = {(c.benchmark, name): row for c in self.canary for name, row in self._of(c).items()}
        own: dict[tuple[grid.Run, int], list[Cell]] = {}
        for cell in self.cells:
            if cell.adapter is not None and cell.sample == 0:
                own.setdefault((cell.run, cell.step), []).append(cell)
        for (run, step), cells in own.items():
            pairs = [
                (row, base[cell.benchmark, name])
                for cell in cells
                for name, row in self._of(cell).items()
                if (cell.benchmark, name) in base
            ]
            adapter = self.adapters[run, step]
            try:
                trust.check_adapter(
                    f"{run.condition}/s{run.seed}/step{step}", str(adapter.path), pairs
                )
            except UserError:
                # What an engine that did not apply an adapter said must not be believed later.
                for cell in [*cells, *self.canary]:
                    self.cache.drop(cell)
                raise

    def _probe(self) -> None:
        """Ask a few prompts again, alone; the outcome is kept by the cells that it is about."""
        path = self._kept("probe")
        try:
            self.probe = trust.Probe(**json.loads(path.read_text("utf-8")))
            return
        except (OSError, ValueError, TypeError):
            pass
        pairs = []
        for cell, item_id in self._probed():
            engine = self.engine(cell)
            if hasattr(engine, "forget"):
                engine.forget()
            request = self._request(cell, self.prompts[cell.benchmark][item_id])
            ((_, answer),) = list(self._asked(cell, [(None, request)]))
            pairs.append((self._of(cell)[item_id], self._row(cell, item_id, answer)))
        self.probe = trust.compare(pairs)
        files.write_text(path, files.canonical_json(vars(self.probe)) + "\n")
        _say(
            f"{self.model}: {self.probe.equal} of {self.probe.asked} prompts answered alone as in "
            f"the batch; largest difference of a log-likelihood {self.probe.largest:.1g}"
        )

    def _probed(self) -> list[tuple[Cell, str]]:
        """Prompts to ask alone: spread over the cells, within their part of the work."""

        def work(row: Row, each_generated: int) -> int:
            return int(row["n_prompt_tokens"] + each_generated * row["n_tokens"])

        chosen = []
        for number, index in enumerate(trust.spread(len(self.cells), PROBES)):
            cell = self.cells[index]
            chosen.append((cell, cell.items[number * 7919 % len(cell.items)]))
        rows = [self._of(cell)[item_id] for cell, item_id in chosen]
        whole = sum(work(row, 1) for cell in self.cells for row in self._of(cell).values())
        kept = trust.affordable(
            [work(row, ALONE) for row in rows],
            [bool(row["logprobs"]) for row in rows],
            max(PROBE_SHARE * whole, PROBE_TOKENS),
        )
        return [chosen[i] for i in kept]

    def _of(self, cell: Cell) -> dict[str, Row]:
        return self.rows[cell.key]

    # -- writing ----------------------------------------------------------------------------------

    def _write(self, out: Path) -> None:
        import polars as pl

        answers = answer_schema()
        schema: dict[str, Any] = {
            "model": pl.String,
            "condition": pl.String,
            "seed": pl.Int64,
            "step": pl.Int64,
            "benchmark": pl.String,
            "task": pl.String,
            "item_id": pl.String,
            "sample": pl.Int64,
            **{name: kind for name, kind in answers.items() if name != "item_id"},
            "adapter": pl.String,
            "items": pl.String,
            "engine": pl.String,
        }
        rows = []
        for cell in self.cells:
            for item_id in cell.items:
                prompt = self.prompts[cell.benchmark][item_id]
                rows.append(
                    {
                        **self._of(cell)[item_id],
                        "model": cell.run.model,
                        "condition": cell.run.condition,
                        "seed": cell.run.seed,
                        "step": cell.step,
                        "benchmark": cell.benchmark,
                        "task": prompt.task,
                        "sample": cell.sample,
                        "adapter": cell.adapter.digest if cell.adapter else "",
                        "items": prompt.digest,
                        "engine": self.engine_name,
                    }
                )
        assert self.probe is not None
        about = {"asked": self.probe.asked, "equal": self.probe.equal}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        with files.atomic_path(out) as temporary:
            frame.write_parquet(
                temporary,
                compression="zstd",
                statistics=True,
                metadata={"batch_invariance": files.canonical_json(about)},
            )
        _say(f"{self.model} {out.stem}: {len(rows)} answers")


def _added(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The engines' metrics, summed; what is a rate or a share only if there was one engine."""
    if len(metrics) < 2:
        return dict(metrics[0]) if metrics else {}
    names = [n for n in metrics[0] if not n.endswith("_per_second")]
    return {n: round(sum(m.get(n, 0.0) for m in metrics), 3) for n in names}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
