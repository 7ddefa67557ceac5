"""What a grid's answers cost: one `zpdbench generate-chunk` against lm-evaluation-harness.

    python benchmarks/serve_speed.py harness --results results/smol \
        --model smol --grid 2x2 --peer PEER_PYTHON --rounds 3 \
        --benchmarks '{"gsm8k": {"source": "files", "items": 4},
                       "mmlu": {"source": "files", "items": 20, "num_fewshot": 5,
                                "tasks": ["anatomy", "astronomy"]}}'
    python benchmarks/serve_speed.py harness --results results \
        --model mini-qwen --grid 2x4 --peer PEER_PYTHON --rounds 3
    python benchmarks/serve_speed.py adapters --results results \
        --model mini-qwen --grid 1x1 2x1 2x4 --rounds 3
    python benchmarks/serve_speed.py prefix --data DATA_DIR --checkpoint CHECKPOINT \
        --ask mmlu_astronomy:40 mmlu_anatomy:40 --rounds 3

Needs the results folder of a study that has run: its checkpoint and its adapters' last steps.
`--grid CxS` takes the first C conditions and S seeds: C x S adapters. Items are made anew, without
a chat template; both sides get the same prompts, choices, stop strings and limits.

`harness` alternates: the peer's command line runs for the base and once an adapter (model hf,
float32, on local task files over those items), then one real generate-chunk with an empty cache
answers for all of them (and makes its checks, which the peer does not). Whole processes are timed.
The bar is held against the same answers on both sides; the ratio without the peer's base is printed
beside it.
`--lean-peer` calls the peer's library instead, without the listing of its own thousands of tasks.
`adapters` times generate-chunk on several grids: the marginal cost of an adapter, in per cent of a
job for the first. `prefix` asks MMLU 5-shot with and without prefix reuse; answers must be equal.

Exit code 1: a bar is missed (BARS; another by --bar), or answers differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from zpdbench import study as studies

BARS = {"harness": 2.5, "adapters": 25.0, "prefix": 2.5}
"""Times as fast, at least; for `adapters` per cent of a first job, at most."""
MINI_BAR = 8.0
"""Times as fast as the harness, at least, on the mini models: there a process costs most."""
SHOTS = 5
"""Shots of the comparison with and without prefix reuse."""
LEAN = """
import sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

checkpoint, adapter, folder, tasks, batch = sys.argv[1:]
simple_evaluate(
    model="hf",
    model_args={"pretrained": checkpoint, "dtype": "float32"}
    | ({"peft": adapter} if adapter else {}),
    tasks=tasks.split(","),
    task_manager=TaskManager(include_path=folder, include_defaults=False),
    device="cpu",
    batch_size=int(batch),
    bootstrap_iters=0,
    log_samples=False,
)
"""


def run(command: Sequence[str], log: Path, **environment: str) -> float:
    """Seconds of a whole process; its output goes to a log, whose end is shown if it fails."""
    begun = time.monotonic()
    with log.open("wb") as out:
        code = subprocess.run(
            command, env={**os.environ, **environment}, stdout=out, stderr=out, check=False
        ).returncode
    if code:
        print(log.read_text("utf-8", "replace")[-3000:], file=sys.stderr)
        sys.exit(f"{command[0]} ended with code {code}")
    return time.monotonic() - begun


class Grid:
    """Some of a study's adapters at their last step, and items of its benchmarks."""

    def __init__(self, args: argparse.Namespace, size: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        conditions, seeds = map(int, size.split("x"))
        config, _ = studies.read_yaml(Path(args.results) / "study.lock.yaml")
        benchmarks = json.loads(args.benchmarks) if args.benchmarks else config["benchmarks"]
        config |= {
            "results": str(folder),
            "seeds": config["seeds"][:seeds],
            "models": {args.model: config["models"][args.model]},
            "conditions": dict(list(config["conditions"].items())[:conditions]),
            "training": {**config["training"], "evaluate_every": config["training"]["steps"]},
            "benchmarks": {
                n: {k: v for k, v in b.items() if k != "interim_items"}
                for n, b in benchmarks.items()
            },
            "generations": {
                **config["generations"], "engine": "vllm", "group_by": ["model"],
                "apply_chat_template": False, "dtype": "float32", "threads": args.threads,
            },
            "hypotheses": {},
        }  # fmt: skip
        if args.max_model_len:
            config["generations"]["max_model_len"] = args.max_model_len
        self.folder, self.config, self.model = folder, folder / "study.yaml", args.model
        self.config.write_text(yaml.safe_dump(config), "utf-8")
        self.study = studies.load(self.config)
        made = Path(args.results)
        self.checkpoint = made / "checkpoints" / args.model
        self.adapters = [
            made / "adapters" / args.model / r.condition / f"s{r.seed}" for r in self.study.runs
        ]
        self.items = {name: folder / f"{name}.parquet" for name in self.study.benchmarks}
        for name, path in self.items.items():
            verb = ["make-items", "--study", str(self.config), "--benchmark", name]
            run(zpdbench(*verb, "--out", str(path)), folder / "items.log")

    def answer(self, number: int) -> float:
        """Seconds of one generate-chunk with an empty cache."""
        with tempfile.TemporaryDirectory() as cache:
            return run(
                zpdbench(
                    "generate-chunk", "--study", str(self.config), "--model", self.model,
                    "--chunk", "all", "--checkpoint", str(self.checkpoint),
                    "--adapters", *map(str, self.adapters),
                    "--items", *map(str, self.items.values()),
                    "--out", str(self.folder / f"{number}.parquet"),
                ),
                self.folder / f"{number}.log",
                ZPDBENCH_CACHE=cache,
            )  # fmt: skip


def zpdbench(*words: str) -> list[str]:
    """The command line of this interpreter's zpdbench."""
    start = "from zpdbench.cli import program; program()"
    return [sys.executable, "-c", start, *words]


def write_tasks(items: Mapping[str, Path], folder: Path) -> list[str]:
    """The harness's task files over our items, a task for each kind of stop and limit; names."""
    import polars as pl

    folder.mkdir()
    names = []
    for benchmark, path in items.items():
        frame = pl.read_parquet(path)
        for number, ((kind, stop, limit), part) in enumerate(
            frame.group_by(["kind", "stop", "max_tokens"], maintain_order=True)
        ):
            name = f"ours_{benchmark}_{number}"
            names.append(name)
            rows = part.select("prompt", "choices", "gold").to_dicts()
            is_choice = kind == "choice"
            for row in rows:
                if is_choice:
                    row["gold"] = int(row["gold"])
            data = folder / f"{name}.jsonl"
            data.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
            task: dict[str, Any] = {
                "task": name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(data)}},
                "test_split": "test",
                "doc_to_text": "prompt",
                "doc_to_target": "gold",
                "target_delimiter": "",
                "num_fewshot": 0,
            }
            if is_choice:
                task |= {
                    "output_type": "multiple_choice",
                    "doc_to_choice": "choices",
                    "metric_list": [{"metric": "acc"}],
                }
            else:
                task |= {
                    "output_type": "generate_until",
                    "generation_kwargs": {
                        "until": list(stop), "do_sample": False, "max_gen_toks": limit,
                    },
                    "metric_list": [{"metric": "exact_match"}],
                }  # fmt: skip
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), "utf-8")
    return names


def harness_command(
    args: argparse.Namespace,
    checkpoint: Path,
    adapter: Path | None,
    folder: Path,
    tasks: list[str],
) -> list[str]:
    """The peer's process for the base or one adapter: its command line, or its library leanly."""
    if args.lean_peer:
        words = [checkpoint, adapter or "", folder, ",".join(tasks), args.batch_size]
        return [args.peer, "-c", LEAN, *map(str, words)]
    model = f"pretrained={checkpoint},dtype=float32" + (f",peft={adapter}" if adapter else "")
    return [
        args.peer, "-m", "lm_eval", "run", "--model", "hf", "--model_args", model,
        "--tasks", ",".join(tasks), "--include_path", str(folder),
        "--device", "cpu", "--batch_size", str(args.batch_size),
    ]  # fmt: skip


def harness(args: argparse.Namespace, folder: Path) -> bool:
    """One job of ours and one process an adapter of theirs, in turn; whether the bar is reached."""
    (size,) = args.grid
    grid = Grid(args, size, folder / "grid")
    tasks = write_tasks(grid.items, folder / "tasks")
    step = f"step{grid.study.training.steps}"
    weights = [None, *(adapter / step for adapter in grid.adapters)]
    ours, theirs, base = [], [], []
    for number in range(args.rounds):
        peer = [
            run(
                harness_command(args, grid.checkpoint, adapter, folder / "tasks", tasks),
                folder / "peer.log",
                HF_HUB_OFFLINE="1",
                HF_HOME=str(folder / "hf"),
                OMP_NUM_THREADS=str(args.threads),
                PYTHONPATH="",
            )
            for adapter in weights
        ]
        theirs.append(sum(peer))
        base.append(peer[0])
        ours.append(grid.answer(number))
        print(
            f"round {number}\tlm-eval {theirs[-1]:.1f} s ({peer[0]:.1f} s the base)\t"
            f"zpdbench {ours[-1]:.1f} s",
            flush=True,
        )
    one, other, without = map(statistics.median, (theirs, ours, base))
    print(
        f"the base and {len(grid.adapters)} adapters\tlm-eval {one:.1f} s\t"
        f"zpdbench {other:.1f} s\t{one / other:.2f} times as fast\n"
        f"without the peer's base\t{(one - without) / other:.2f} times as fast"
    )
    return reached(one / other, args.bar, "times as fast", at_most=False)


def adapters(args: argparse.Namespace, folder: Path) -> bool:
    """Jobs of several sizes in turn; whether one more adapter costs as little as the bar says."""
    grids = [Grid(args, size, folder / size) for size in args.grid]
    seconds: list[list[float]] = [[] for _ in grids]
    for number in range(args.rounds):
        for grid, mine in zip(grids, seconds, strict=True):
            mine.append(grid.answer(number))
            print(f"round {number}\t{len(grid.adapters)} adapters\t{mine[-1]:.1f} s", flush=True)
    medians = [statistics.median(s) for s in seconds]
    first, least = medians[0], len(grids[0].adapters)
    print(f"{least} adapters\t{first:.1f} s")
    good = True
    for grid, taken in zip(grids[1:], medians[1:], strict=True):
        more = (taken - first) / (len(grid.adapters) - least)
        print(
            f"{len(grid.adapters)} adapters\t{taken:.1f} s\tone more: {more:.2f} s, "
            f"{100 * more / first:.0f} % of the first job"
        )
        good &= reached(100 * more / first, args.bar, "% of a first job", at_most=True)
    return good


def prefix(args: argparse.Namespace, folder: Path) -> bool:
    """The same questions with and without prefix reuse, in turn; whether the bar is reached."""
    script = str(Path(__file__).with_name("compare_with_harness.py"))
    ways: dict[str, list[str]] = {"with": [], "without": ["--no-prefix-cache"]}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    whole: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, more in ways.items():
            log = folder / f"{way}.log"
            taken = run(
                [
                    sys.executable, script, "ours", "--data", args.data,
                    "--checkpoint", args.checkpoint, "--ask", *args.ask,
                    "--num-fewshot", str(SHOTS), "--threads", str(args.threads),
                    "--out", str(folder / f"{way}.jsonl"), *more,
                ],
                log,
            )  # fmt: skip
            (told,) = [t for t in log.read_text("utf-8").splitlines() if t.startswith("{")]
            seconds[way].append(json.loads(told)["answer_seconds"])
            whole[way].append(taken)
            print(f"{way}\tanswering {seconds[way][-1]:.1f} s\tprocess {taken:.1f} s", flush=True)
    files = [str(folder / f"{way}.jsonl") for way in ways]
    same = [sys.executable, script, "compare", *files, "--adapters", "base", "--ask", *args.ask]
    subprocess.run(same, check=True)
    ratios = {}
    for what, table in (("answering", seconds), ("process", whole)):
        one, other = (statistics.median(table[way]) for way in ("without", "with"))
        ratios[what] = one / other
        print(f"{what}: {other:.1f} s with, {one:.1f} s without: {ratios[what]:.2f} times faster")
    # Starting the engine costs both ways the same, and more the fewer questions are asked.
    return reached(ratios["answering"], args.bar, "times as fast in answering", at_most=False)


def reached(value: float, bar: float, what: str, *, at_most: bool) -> bool:
    """Whether a figure is on the right side of its bar; says so."""
    good = value <= bar if at_most else value >= bar
    side = "most" if at_most else "least"
    print(f"{'reached' if good else 'MISSED'}: {value:.2f} {what}, the bar is at {side} {bar:g}")
    return good


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (verbs.add_parser("harness"), verbs.add_parser("adapters")):
        verb.add_argument("--results", required=True)
        verb.add_argument("--model", required=True)
        verb.add_argument("--grid", nargs="+", required=True, metavar="CxS")
        verb.add_argument("--benchmarks", help="JSON; the configuration's if not given")
        verb.add_argument("--max-model-len", type=int)
    verbs.choices["harness"].add_argument("--peer", required=True, help="interpreter with lm_eval")
    verbs.choices["harness"].add_argument("--batch-size", type=int, default=8)
    verbs.choices["harness"].add_argument("--lean-peer", action="store_true")
    verb = verbs.add_parser("prefix")
    verb.add_argument("--data", required=True)
    verb.add_argument("--checkpoint", required=True)
    verb.add_argument("--ask", nargs="+", required=True, metavar="TASK:COUNT")
    for verb in verbs.choices.values():
        verb.add_argument("--rounds", type=int, default=3)
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--bar", type=float, help="instead of the project's own")
    args = parser.parse_args()
    if args.bar is None:
        mini = args.verb == "harness" and args.model.startswith("mini")
        args.bar = MINI_BAR if mini else BARS[args.verb]
    run_verb = {"harness": harness, "adapters": adapters, "prefix": prefix}[args.verb]
    with tempfile.TemporaryDirectory() as folder:
        good = run_verb(args, Path(folder))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
