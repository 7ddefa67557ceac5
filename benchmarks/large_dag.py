"""How long Snakemake takes to plan a large study, and in how much memory.

    python benchmarks/large_dag.py [--seeds 32] [--folder FOLDER]

A cell is a checkpoint x benchmark: 10 models x 4 conditions x 32 seeds x 20 steps x 4 benchmarks
are 102,400. A dry run from nothing, by the command line as a user gives it; prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
MODELS, STEPS = 10, 20


def synthetic(seeds: int) -> dict[str, Any]:
    """The default study with ten embedded models, `seeds` seeds and twenty steps."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/mini.yaml").read_text("utf-8"))
    model = {"source": "embedded", "architecture": "qwen2", "layers": 4, "hidden_size": 128}
    config["models"] = {f"m{i}": {**model, "steps": 100 + i} for i in range(MODELS)}
    config["seeds"] = list(range(seeds))
    config["training"] |= {"steps": 10 * STEPS, "evaluate_every": 10}
    config["generations"]["group_by"] = ["model", "seed"]
    config["hypotheses"]["h3a"] |= {"small": "m0", "large": "m1"}
    orders = ("random", "easy_to_hard", "hard_to_easy", "zpd")
    config["conditions"] = {order: {"order": order} for order in orders}
    return config


def measure(folder: Path, seeds: int = 32) -> dict[str, float]:
    """Dry-run the study below `folder`, in a process that had no other child: its peak counts too.

    Returns:
        cells, jobs, seconds (of the clock), processor_seconds and memory_mb (the largest).

    Raises:
        RuntimeError: the dry run failed.
    """
    config = synthetic(seeds)
    config["results"] = str(folder / "results")
    file = folder / "large.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    program = Path(sys.executable).with_name("snakemake")
    command = [program, "--dry-run", "--nolock", "--quiet", "rules", "--configfile", file]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = done.stdout + done.stderr
    total = [line.split()[1] for line in text.splitlines() if line.startswith("total ")]
    if done.returncode or not total:
        raise RuntimeError(text[-2000:])
    used = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    cells = MODELS * len(config["conditions"]) * seeds * STEPS * len(config["benchmarks"])
    return {
        "cells": cells,
        "jobs": int(total[0]),
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "memory_mb": round(after.ru_maxrss / 1024),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="else a temporary one")
    args = parser.parse_args()
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(args.folder, args.seeds)))
    else:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(measure(Path(name), args.seeds)))


if __name__ == "__main__":
    main()
