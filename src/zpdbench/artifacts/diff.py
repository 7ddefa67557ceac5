"""`zpdbench diff A B`: what differs between two runs of a study, from configuration to effect."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files, grid
from zpdbench import study as studies
from zpdbench.artifacts import (
    agreement,
    archive,
    evidence,
    frames,
    layout,
    numbers,
    reading,
)
from zpdbench.artifacts.findings import plain
from zpdbench.artifacts.reading import BadFileError
from zpdbench.errors import UserError
from zpdbench.study import Study

if TYPE_CHECKING:
    import polars as pl

PATHS = layout.Paths("results")
COLUMNS = ("part", "what", "a", "b", "note")
_EFFECTS = ("effect_small", "effect_large", "difference", "gain", "p_value", "verdict")


@dataclass(frozen=True)
class Side:
    """One of the two: its folder, study and jobs' records."""

    name: str
    folder: Path
    study: Study
    records: dict[str, dict[str, Any]]

    def path(self, name: str) -> Path:
        """A file of this side."""
        return self.folder / name


@dataclass(frozen=True)
class Line:
    """One thing that differs."""

    part: str
    what: str
    a: str
    b: str
    note: str = ""


def main(args: argparse.Namespace) -> int:
    """Compare `args.a` with `args.b` (bundles or results folders).

    Returns:
        0: nothing differs that counts; 1: something does.
    """
    with tempfile.TemporaryDirectory(prefix="zpdbench-diff-", dir=args.scratch) as scratch:
        a = open_side(Path(args.a), Path(scratch) / "a")
        b = open_side(Path(args.b), Path(scratch) / "b")
        lines = list(compare(a, b))
    for part in dict.fromkeys(line.part for line in lines):
        print(f"{plain(part)}:")
        for line in [x for x in lines if x.part == part]:
            note = f"  ({line.note})" if line.note else ""
            print(plain(f"  {line.what}: {line.a} | {line.b}{note}"))
    if not lines:
        print("nothing differs")
    if args.out:
        rows = ([x.part, x.what, x.a, x.b, x.note] for x in lines)
        files.write_tsv(args.out, COLUMNS, rows)
    return 1 if lines else 0


def open_side(path: Path, scratch: Path) -> Side:
    """A bundle or a results folder.

    Raises:
        UserError: neither, or a bundle that is not safe to unpack.
    """
    if not path.exists():
        raise UserError(
            "no such bundle or folder",
            where=str(path),
            fix="give a crate.zip, its folder, or a results folder",
        )
    folder = path
    if path.is_file():
        scratch.mkdir(parents=True)
        contents = archive.open_bundle(path, scratch)
        if contents.refusals:
            entry, reason = contents.refusals[0]
            raise UserError(
                f"refused: {reason}",
                where=f"{path}: {entry}",
                fix="fetch the bundle again from its authors",
            )
        folder = contents.folder
    lock = folder / layout.STUDY
    try:
        reading.check_yaml(lock)
        study = studies.load(lock)
        if large := layout.too_large(study):
            raise BadFileError(large)
        names = {
            p.relative_to(folder).as_posix(): None for p in (folder / "records").rglob("*.json")
        }
        found = evidence.read_records(folder, names)
    except (BadFileError, OSError) as error:
        raise UserError(
            f"cannot be read ({error})", where=str(path), fix="give a crate.zip or a results folder"
        ) from error
    return Side(path.name, folder, study, found)


def compare(a: Side, b: Side) -> Iterator[Line]:
    """All that differs: configuration, versions and machines, items, verdicts, effects."""
    yield from _configuration(a, b)
    yield from _versions(a, b)
    yield from _items(a, b)
    yield from _verdicts(a, b)
    yield from _effects(a, b)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _flat(value[key], f"{path}.{key}" if path else str(key))
    else:
        yield path, files.canonical_json(value)


def _configuration(a: Side, b: Side) -> Iterator[Line]:
    skipped = ("results", "data_dir", "images.")
    left, right = (dict(_flat(s.study.model_dump(mode="json"))) for s in (a, b))
    for key in sorted(set(left) | set(right)):
        if left.get(key) != right.get(key) and not key.startswith(skipped):
            yield Line("configuration", key, left.get(key, "absent"), right.get(key, "absent"))


def _facts(side: Side) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for record in side.records.values():
        found.setdefault("code", set()).add(record["code"][:12])
        machine: Mapping[str, Any] = record["machine"]
        for key, value in machine.items():
            if key == "packages":
                for package, version in value.items():
                    found.setdefault(package, set()).add(str(version))
            else:
                text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
                found.setdefault(key, set()).add(text)
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


def _versions(a: Side, b: Side) -> Iterator[Line]:
    left, right = _facts(a), _facts(b)
    for key in sorted(set(left) | set(right)):
        if left.get(key) != right.get(key):
            yield Line("versions and machines", key, left.get(key, "none"), right.get(key, "none"))


def _items(a: Side, b: Side) -> Iterator[Line]:
    for benchmark in [x for x in a.study.benchmarks if x in b.study.benchmarks]:
        name = PATHS.items(benchmark).removeprefix("results/")
        try:
            left, right = (
                dict(
                    frames.collect(
                        frames.scan(s.path(name), frames.ITEMS).select("item_id", "digest")
                    ).rows()
                )
                for s in (a, b)
            )
        except BadFileError as error:
            yield Line("items", benchmark, "", "", str(error))
            continue
        changed = sum(left[i] != right[i] for i in set(left) & set(right))
        if left != right:
            note = f"{len(set(left) & set(right))} ids in both, {changed} with other content"
            yield Line("items", benchmark, f"{len(left)} items", f"{len(right)} items", note)


def _verdicts(a: Side, b: Side) -> Iterator[Line]:
    """Verdicts at each side's final step, run by run: McNemar's pairs are of one run only."""
    common = [r for r in a.study.all_runs if r in set(b.study.all_runs)]
    if not common:
        left, right = (f"{len(s.study.all_runs)} runs" for s in (a, b))
        yield Line("verdicts", "runs", left, right, "no run in common: nothing can be paired")
    for run in common:
        name = "/".join(map(str, run))
        try:
            both = _joined(a, b, run)
        except BadFileError as error:
            yield Line("verdicts", name, "", "", str(error))
            continue
        if not both.height:
            yield Line("verdicts", name, "", "", "no item in common: nothing can be paired")
        for (benchmark,), part in both.group_by(["benchmark"], maintain_order=True):
            up = int((part["correct"] > part["correct_b"]).sum())
            down = int((part["correct"] < part["correct_b"]).sum())
            other = int((part["prediction"] != part["prediction_b"]).sum())
            if up or down or other:
                p = agreement.mcnemar(up, down)
                yield Line(
                    "verdicts",
                    f"{name} {benchmark}",
                    f"{up} right in it only",
                    f"{down} right in it only",
                    f"{part.height} items in both, {other} predictions differ, "
                    f"McNemar's exact p {p:.3g}",
                )


def _joined(a: Side, b: Side, run: grid.Run) -> pl.DataFrame:
    """Verdicts of both on the same items, which are the same if their digests are.

    Returns:
        benchmark digest sample correct prediction correct_b prediction_b.
    """
    key = ["benchmark", "digest", "sample"]
    left, right = (_final(side, run) for side in (a, b))
    return left.join(right, on=key, how="inner", suffix="_b").sort(key)


def _final(side: Side, run: grid.Run) -> pl.DataFrame:
    import polars as pl

    name = PATHS.scores(*run).removeprefix("results/")
    step = 0 if run.condition == grid.BASE else side.study.evaluation_steps[-1]
    scores = frames.scan(side.path(name), frames.SCORES).filter(pl.col("step") == step)
    items = pl.concat(
        [
            frames.scan(side.path(PATHS.items(x).removeprefix("results/")), frames.ITEMS).select(
                "benchmark", "item_id", "digest"
            )
            for x in side.study.benchmarks
        ]
    )
    return frames.collect(
        scores.join(items, on=["benchmark", "item_id"], how="inner").select(
            "benchmark", "digest", "sample", "correct", "prediction"
        )
    )


def _effects(a: Side, b: Side) -> Iterator[Line]:
    if not all(s.path("h3a.tsv").is_file() for s in (a, b)):
        yield Line("effects", "h3a.tsv", "", "", "not in both")
        return
    left, right = (
        {(r["benchmark"], r["scale"]): r for r in numbers.rows(s.path("h3a.tsv"))} for s in (a, b)
    )
    for key in sorted(set(left) | set(right)):
        one, other = left.get(key, {}), right.get(key, {})
        for column in _EFFECTS:
            x, y = one.get(column, "absent"), other.get(column, "absent")
            if x != y and not numbers.same_text(x, y, numbers.EXACT):
                overlap = _overlap(one, other) if column == "difference" else ""
                yield Line("effects", f"{'/'.join(key)} {column}", x, y, overlap)


def _overlap(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    try:
        low = max(float(r["difference_low"]) for r in (one, other))
        high = min(float(r["difference_high"]) for r in (one, other))
    except (KeyError, ValueError):
        return ""
    return "the intervals overlap" if low <= high else "the intervals do not overlap"
