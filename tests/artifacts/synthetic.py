"""A results folder whose answers were drawn and not generated; all else is made by the real verbs.

Items, verdicts, statistics, figures and the jobs' records come from the verbs themselves. Weights
are a few random numbers in the real format: nothing on levels 0 to 2 runs them.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from zpdbench import cli, files, grid, records, study
from zpdbench.adapters import trace
from zpdbench.artifacts import level1
from zpdbench.benchmarks import items as benchmark_items

COLUMNS = [
    *("model", "condition", "seed", "step", "benchmark", "task", "item_id", "sample", "text"),
    *("finish_reason", "n_prompt_tokens", "n_tokens", "logprobs", "adapter", "items", "engine"),
]
CONFIG: dict[str, Any] = {
    "results": "results",
    "seeds": [0, 1, 2],
    "models": {
        name: {
            "source": "embedded",
            "architecture": kind,
            "layers": 2,
            "hidden_size": 64,
            "steps": 5,
        }
        for name, kind in (("small", "qwen2"), ("large", "llama"))
    },
    "conditions": {"random": {"order": "random"}, "zpd": {"order": "zpd"}},
    "corpus": {
        "name": "tiny",
        "sources": {"embedded": {"format": "embedded", "examples": 40}},
        "probe": 4,
    },
    "training": {"steps": 4, "evaluate_every": 2, "learning_rate": 3e-4, "max_tokens": 192},
    "benchmarks": {
        "humaneval": {"source": "embedded", "items": 6, "interim_items": 3, "max_tokens": 64},
        "gsm8k": {
            "source": "embedded",
            "items": 12,
            "interim_items": 6,
            "num_fewshot": 0,
            "max_tokens": 64,
        },
        "mmlu": {"source": "embedded", "items": 12, "interim_items": 6, "num_fewshot": 0},
        "kobest": {"source": "embedded", "items": 15, "interim_items": 10, "num_fewshot": 0},
    },
    "generations": {"engine": "vllm", "group_by": ["model"], "apply_chat_template": True},
    "hypotheses": {
        "h3a": {
            "small": "small",
            "large": "large",
            "claimed": {"gsm8k": {"small": 3, "large": 8}, "d": {"small": 1.5, "large": 2.2}},
        }
    },
}


def make(
    folder: Path,
    config: dict[str, Any] | None = None,
    answers: Callable[[study.Study, list[grid.Run]], pl.DataFrame] | None = None,
) -> Path:
    """Make a complete results folder `folder`; returns its study.lock.yaml.

    Args:
        answers: gives the answers of a chunk's runs; `generations` if None.
    """
    loaded = study.parse({**(config or CONFIG), "results": str(folder)})
    lock = Path(loaded.paths.study_lock)
    files.write_text(lock, study.lock_text(loaded))
    paths = loaded.paths
    for model in loaded.models:
        _weights(Path(paths.checkpoint(model)), model)
        _record("make-checkpoint", lock, model=model, out=paths.checkpoint(model))
    for benchmark in loaded.benchmarks:
        _verb("make-items", lock, "--benchmark", benchmark, "--out", paths.items(benchmark))
    items = [paths.items(b) for b in loaded.benchmarks]
    corpus = paths.corpus(loaded.corpus.name)
    _corpus(Path(corpus))
    _record("make-corpus", lock, corpus=loaded.corpus.name, items=[], out=corpus)
    for run in loaded.runs:
        out = paths.adapter(*run)
        _adapter(Path(out), run, loaded)
        given = {"checkpoint": paths.checkpoint(run.model), "corpus": corpus}
        _record("train-adapter", lock, **run._asdict(), **given, out=out)
    for (model, chunk), members in loaded.chunks.items():
        out = paths.generations(model, chunk)
        (answers or generations)(loaded, members).write_parquet(_parent(out))
        _record(
            "generate-chunk",
            lock,
            model=model,
            chunk=chunk,
            checkpoint=paths.checkpoint(model),
            adapters=loaded.chunk_adapters(model, chunk),
            items=items,
            out=out,
        )
    for run in loaded.all_runs:
        _verb(
            "score-run",
            lock,
            *("--model", run.model, "--condition", run.condition, "--seed", str(run.seed)),
            *("--generations", loaded.run_generations(*run), "--items", *items),
            *("--out", paths.scores(*run)),
        )
    statistics(loaded, lock)
    return lock


def statistics(loaded: study.Study, lock: Path) -> None:
    """Every table and figure from the scores that are there."""
    paths = loaded.paths
    scores = [paths.scores(*run) for run in loaded.all_runs]
    tables = ("--out-scores", paths.table("scores"), "--out-curves", paths.table("curves"))
    _verb("aggregate-scores", lock, *tables, *scores)
    out = paths.table("h3a")
    assert cli.main(["h3a", "--configfile", str(lock), "--scores", *scores, "--out", out]) == 0
    table = ("--scores", paths.table("scores"))
    for verb, name in (("h3a-sensitivity", "h3a_sensitivity"), ("calibration", "calibration")):
        _verb(verb, lock, "--scores", *scores, "--out", paths.table(name))
    for verb, name in (("rq1", "anova"), ("h3b", "h3b"), ("r1", "r1"), ("power", "power")):
        _verb(verb, lock, *table, "--out", paths.table(name))
    adapters = ("--adapters", *(paths.adapter(*run) for run in loaded.runs))
    _verb("efficiency", lock, *table, *adapters, "--out", paths.table("efficiency"))
    given = ("--efficiency", paths.table("efficiency"))
    _verb("expected", lock, *table, *given, "--out", paths.table("expected"))
    drawn = ("curves", "effects", "power", "expected", "interaction")
    figures = [paths.figure(f"{n}.{kind}") for n in drawn for kind in ("svg", "png")]
    given = [
        w
        for t in ("curves", "h3a", "power", "expected", "scores")
        for w in (f"--{t}", paths.table(t))
    ]
    _verb("draw-figures", lock, *given, "--out", *figures)
    secondary = ("anova", "h3b", "r1", "efficiency", "power", "expected")
    tables = ("h3a", *secondary, *loaded.further_tables, "scores", "curves")
    _verb(
        "report",
        lock,
        *("--tables", *(paths.table(t) for t in tables), "--scores", *scores),
        *("--generations", *(paths.generations(*chunk) for chunk in loaded.chunks)),
        *("--items", *(paths.items(b) for b in loaded.benchmarks)),
        *("--adapters", *(paths.adapter(*run) for run in loaded.runs)),
        *("--corpus", paths.corpus(loaded.corpus.name), "--out", f"{paths.results}/report.html"),
    )


def training_figures(loaded: study.Study, lock: Path) -> None:
    """The figures drawn from traces and corpus."""
    paths = loaded.paths
    adapters = [paths.adapter(*run) for run in loaded.runs]
    corpus = ("--corpus", paths.corpus(loaded.corpus.name))
    out = [f"{paths.results}/{name}" for name in level1.TRAINING_FIGURES]
    _verb("draw-training", lock, "--adapters", *adapters, *corpus, "--out", *out)


def generations(loaded: study.Study, members: list[grid.Run]) -> pl.DataFrame:
    """Answers of a chunk's runs, right with a chance that depends on the run and step."""
    rows = []
    listed = {name: benchmark_items.read(loaded.paths.items(name)) for name in loaded.benchmarks}
    for run in members:
        steps = [0] if run.condition == grid.BASE else loaded.served_steps
        for step in steps:
            adapter = ""
            if run.condition != grid.BASE:
                folder = Path(loaded.paths.adapter(*run)) / grid.adapter_step(step)
                adapter = files.digest({p.name: files.sha256_file(p) for p in folder.iterdir()})
            skill = 0.3 + 0.1 * step + (0.1 if run.condition == "zpd" else 0.0)
            draw = random.Random(f"{run}{step}")
            for name, section in loaded.benchmarks.items():
                for item in listed[name]:
                    if step != steps[-1] and not item["interim"]:
                        continue
                    for sample in range(section.samples):
                        answer = _answer(item, draw.random() < skill, draw)
                        rows.append(
                            {
                                "model": run.model,
                                "condition": run.condition,
                                "seed": run.seed,
                                "step": step,
                                "benchmark": name,
                                "task": item["task"],
                                "item_id": item["item_id"],
                                "sample": sample,
                                **answer,
                                "adapter": adapter,
                                "items": item["digest"],
                                "engine": "vllm 0 (drawn)",
                            }
                        )
    return pl.DataFrame(rows).select(COLUMNS)


def _answer(item: dict[str, Any], right: bool, draw: random.Random) -> dict[str, Any]:
    count = len(item["choices"])
    logprobs = [-2.0 - draw.random() for _ in range(count)]
    text = ""
    if count:
        gold = int(item["gold"])
        wrong = draw.choice([i for i in range(count) if i != gold])
        logprobs[gold if right else wrong] = -0.5 - draw.random()
    elif item["gold"]:
        text = f" The answer is found.\n#### {item['gold'] if right else '-1'}"
    else:
        text = json.loads(item["doc"])["canonical_solution"] if right else "    return None\n"
    return {
        "text": text,
        "finish_reason": "stop",
        "n_prompt_tokens": 20,
        "n_tokens": len(text) // 3,
        "logprobs": logprobs,
    }


def _verb(verb: str, lock: Path, *arguments: str) -> None:
    assert cli.main([verb, "--study", str(lock), *arguments]) == 0


def _record(verb: str, lock: Path, **arguments: Any) -> None:
    words = [verb, "--study", str(lock)]
    for name, value in arguments.items():
        values = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        words += [f"--{name}", *values]
    assert records.write(verb, {"study": str(lock), **arguments}, words)


def _parent(path: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)


def safetensors(seed: str, count: int = 16) -> bytes:
    """A small file of random float32 numbers in the safetensors format."""
    header = {
        "layer.weight": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]},
        "__metadata__": {"format": "pt"},
    }
    text = json.dumps(header).encode()
    draw = random.Random(seed)
    data = struct.pack(f"<{count}f", *(draw.random() for _ in range(count)))
    return struct.pack("<Q", len(text)) + text + data


def _weights(folder: Path, model: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen2"}\n')
    (folder / "model.safetensors").write_bytes(safetensors(model))
    files.write_manifest(folder, {"kind": "checkpoint"})


def _corpus(path: Path) -> None:
    path.parent.mkdir(parents=True)
    columns = ["id", "source", "prompt", "response"]
    texts = {c: [f"{c} {i}" for i in range(4)] for c in columns}
    facts = {"language": ["en"] * 4, "split": ["train"] * 3 + ["probe"]}
    pl.DataFrame({**texts, **facts, "difficulty": [0.2, 0.4, 0.6, 0.8]}).write_parquet(path)


def _adapter(folder: Path, run: grid.Run, loaded: study.Study) -> None:
    for step in loaded.evaluation_steps:
        target = folder / grid.adapter_step(step)
        target.mkdir(parents=True)
        config = {"base_model_name_or_path": run.model, "peft_type": "LORA", "r": 8}
        (target / "adapter_config.json").write_text(json.dumps(config) + "\n")
        (target / "adapter_model.safetensors").write_bytes(safetensors(f"{run}{step}"))
    rows = [
        {
            "kind": "step",
            "step": step,
            "loss": 3.0 / step,
            "learning_rate": 1e-4,
            "gradient_norm": 1.0,
            "examples": [f"id {step % 3}"],
            "tokens": 100,
            "targets": 50,
            "tokens_scored": 0,
            "flops": 1000 + run.seed,
            "block": 0,
        }
        for step in range(1, loaded.training.steps + 1)
    ]
    trace.write(folder / "trace.parquet", pl.DataFrame(rows, schema=trace.schema()))
    base = files.read_manifest(loaded.paths.checkpoint(run.model))["digest"]
    corpus = files.sha256_file(loaded.paths.corpus(loaded.corpus.name))
    facts = {"kind": "adapter", **run._asdict(), "base": base, "corpus": corpus}
    facts |= {"order": loaded.conditions[run.condition].order, "steps": loaded.evaluation_steps}
    facts |= {"trained_parameters": 16, "diagnosis": ["it ran"]}
    files.write_manifest(folder, facts)
