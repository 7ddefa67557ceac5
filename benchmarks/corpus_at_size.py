"""A corpus of R4's size through config/r4.yaml's preparation: seconds a step, peak memory.

    python benchmarks/corpus_at_size.py --data DIR [--share 1.0]

The data sets themselves are on the hub; here two of their size are made of records of DIR (Alpaca's
format, docs/benchmarks.md lists the files): 52,002 in English, the records as they are and then
pairs of them, and 21,632 in Korean, four or five records each, so that they are about as long as
those of Alpaca-52K and OpenOrca-KO, or longer. Nothing is drawn at random but by a fixed seed.
`--share` makes a smaller one.
The bar is 300 s without kiwipiepy's (Korean difficulty) and 4 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"alpaca": 52_002, "openorca_ko": 21_632}
FILES = {
    "alpaca": ["instruct_en/alpaca_random_9229.json", "instruct_en/alpaca_cherry_5_percent.json"],
    "openorca_ko": ["instruct_ko/koalpaca_v1.0_11432.json"],
}
BAR_SECONDS, BAR_GB = 300.0, 4.0

Record = dict[str, str]


def records(folder: Path, name: str, count: int) -> list[Record]:
    """So many records of a source, made of the files' own."""
    own = [
        {key: str(row.get(key) or "") for key in ("instruction", "input", "output")}
        for file in FILES[name]
        for row in json.loads((folder / file).read_text("utf-8"))
    ]
    draw = random.Random(f"corpus at size: {name}")
    made = own[:count] if name == "alpaca" else []
    while len(made) < count:
        parts = draw.sample(own, 2 if name == "alpaca" else 4 + len(made) % 2)
        made.append({key: "\n".join(p[key] for p in parts if p[key]) for key in own[0]})
    return made


def settings(folder: Path, data: Path) -> Any:
    """config/r4.yaml on these records and the authors' benchmark files."""
    from zpdbench import study

    r4 = study.load(ROOT / "config/r4.yaml", pins=False)
    sources = {
        name: source.model_copy(update={"repo": None, "path": f"{name}.json"})
        for name, source in r4.corpus.sources.items()
    }
    benchmarks = {
        name: section.model_copy(update={"source": "files"})
        for name, section in r4.benchmarks.items()
    }
    return r4.model_copy(
        update={
            "corpus": r4.corpus.model_copy(update={"sources": sources}),
            "benchmarks": benchmarks,
            "data_dir": str(data),
        }
    )


@contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the block's seconds under a name, and print them, beside those of CPU time.

    The second are fewer where other work runs on the machine, and more where both cores are used.
    """
    started, used = time.monotonic(), _cpu_seconds()
    yield
    seconds[name] = time.monotonic() - started
    print(f"{name:<40}{seconds[name]:8.1f} s, CPU {_cpu_seconds() - used:8.1f} s", flush=True)


def _cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> int:
    """Print the table; 1 where a bar is missed at full size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from zpdbench.benchmarks import items
    from zpdbench.corpora import make_corpus, make_items, prepare, sources
    from zpdbench.curriculum import difficulty

    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="zpdbench-size-") as name:
        folder = Path(name)
        study = settings(folder, args.data)
        corpus = study.corpus
        for source, size in SIZES.items():
            rows = records(args.data, source, int(size * args.share))
            (folder / f"{source}.json").write_text(json.dumps(rows), "utf-8")
        asked = []
        for benchmark in study.benchmarks:
            made = make_items.items_of(study, benchmark)
            items.write(folder / f"{benchmark}.parquet", benchmark, made)
            asked.append(folder / f"{benchmark}.parquet")
        examples: list[dict[str, str]] = []
        with timed("read and normalise", seconds):
            for source in sorted(corpus.sources):
                read, _ = sources.read(
                    source, corpus.sources[source], corpus, [folder / f"{source}.json"]
                )
                examples += [{**row, "corpus_source": source} for row in read]
        count = len(examples)
        with timed("defects, language, length", seconds):
            examples, _ = prepare.clean(examples, corpus.prepare)
        examples.sort(key=lambda row: row["id"])
        with timed("near-duplicates", seconds):
            kept, _ = prepare.without_near_duplicates(examples, corpus.prepare.near_duplicates)
        print(f"  {len(examples) - len(kept):,} found")
        with timed("decontaminate", seconds):
            kept, _ = make_corpus._decontaminate(kept, asked, study)
        for language in ("en", "ko"):
            part = [row for row in kept if row["language"] == language]
            with timed(f"difficulty, {language}", seconds):
                difficulty.measure(
                    [row["prompt"] for row in part],
                    [row["response"] for row in part],
                    [language] * len(part),
                )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    rest = sum(seconds.values()) - seconds["difficulty, ko"]
    print(f"{count:,} examples, {len(kept):,} kept; all but kiwipiepy {rest:.0f} s, {peak:.2f} GB")
    return int(args.share >= 1 and (rest > BAR_SECONDS or peak > BAR_GB))


if __name__ == "__main__":
    sys.exit(main())
