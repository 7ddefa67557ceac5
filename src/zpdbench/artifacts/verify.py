"""`zpdbench verify`: which of a bundle's claims hold, which do not, and which were not checked."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zpdbench import records
from zpdbench.artifacts import archive, findings, level0, level1, level2, sign
from zpdbench.artifacts.findings import DIFFERS, Table
from zpdbench.artifacts.level0 import Bundle, Outside
from zpdbench.artifacts.workshop import Workshop
from zpdbench.errors import UserError


def main(args: argparse.Namespace) -> int:
    """Check `args.bundle` up to `args.level` and write `args.out` with a page beside it.

    Returns:
        0: all that was asked was checked and holds; 1: something differs; 3: nothing differs, but
        a level that was asked for could not be checked at all.
    """
    path = Path(args.bundle)
    if not path.exists():
        raise UserError("no such bundle", where=str(path), fix="give a crate.zip or its folder")
    outside = Outside(
        digest=args.digest,
        signature=_signature(path, args.signature),
        signers=Path(args.signers) if args.signers else None,
    )
    if args.data:
        os.environ["ZPDBENCH_DATA"] = str(Path(args.data).resolve())
    table = Table(args.level)
    with tempfile.TemporaryDirectory(prefix="zpdbench-verify-", dir=args.scratch) as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        contents = archive.open_bundle(path, folder)
        bundle = level0.check(contents, outside, table)
        if bundle is not None:
            run_levels(bundle, Path(scratch) / "work", table, args)
        elif args.level:
            print("level 0 failed: nothing further was looked at", file=sys.stderr)
        write(args.out, path.name, bundle, table)
    return report(args.out, bundle, table)


def run_levels(bundle: Bundle, scratch: Path, table: Table, args: argparse.Namespace) -> None:
    """Levels 1 to `args.level`; each is looked at even if one below found something."""
    workshop = Workshop(scratch, bundle.study)
    levels: dict[int, Callable[[], None]] = {
        1: lambda: level1.check(bundle, workshop, table),
        2: lambda: level2.check(bundle, workshop, table, workers=args.jobs),
    }
    for level in range(1, args.level + 1):
        try:
            levels[level]()
        except Exception as error:  # whatever a hostile file provokes is a finding, not a crash
            why = f"{type(error).__name__}: {error}"
            table.add(level, "the level can be run to its end", "", DIFFERS, why=why)


def _signature(bundle: Path, given: str | None) -> Path | None:
    if given:
        return Path(given)
    beside = sign.signature_of(bundle)
    return beside if beside.is_file() else None


def write(out: str, name: str, bundle: Bundle | None, table: Table) -> None:
    """The table as TSV, and as a page of the same name."""
    findings.write_tsv(out, table.rows)
    facts = [("bundle", name), ("levels", f"0 to {table.asked}")]
    machines: Mapping[str, tuple[str, str]] = {}
    if bundle is not None:
        code = bundle.facts["code"]
        changed = "changed" if code["diff"] else ""
        facts += [
            ("study", bundle.facts["name"]),
            ("description", bundle.facts["description"]),
            ("code", " ".join(filter(None, (code["version"], code["commit"], changed)))),
            ("code here", "the same" if code["package"] == records.code_digest() else "another"),
        ]
        machines = compare_machines(bundle)
    findings.write_page(
        Path(out).with_suffix(".html"), f"Verification of {name}", table, facts, machines
    )


def compare_machines(bundle: Bundle) -> dict[str, tuple[str, str]]:
    """What the authors' machine did otherwise than this one: fact -> (there, here)."""
    here = records.machine()
    there: dict[str, set[str]] = {}
    for record in bundle.records.values():
        for key, value in record["machine"].items():
            if key != "packages":
                there.setdefault(key, set()).add(_shown(value))
        for key, value in record["machine"]["packages"].items():
            there.setdefault(key, set()).add(str(value))
    compared = {}
    for key, values in sorted(there.items()):
        own = _shown(here[key]) if key in here else _version(key)
        theirs = ", ".join(sorted(values))
        if theirs != own:
            compared[key] = (theirs, own)
    dtype = bundle.study.generations.dtype
    compared["dtype of the engine"] = (dtype, dtype)
    return compared


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _version(package: str) -> str:
    from importlib import metadata

    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def report(out: str, bundle: Bundle | None, table: Table) -> int:
    """Say on the terminal what came out; the exit code."""
    digest = next((r.got for r in table.rows if r.claim.startswith("it is the bundle")), "")
    if digest:
        print(f"digest {digest}")
    print(*table.summary(), sep="\n")
    for row in [r for r in table.rows if r.verdict == DIFFERS][:10]:
        print(f"differs: {row.artefact}: {row.claim}" + (f" ({row.why})" if row.why else ""))
    for level in table.unchecked_levels():
        print(f"level {level} was asked for and could not be checked")
    print(f"{out}: {len(table.rows)} checks; the page is {Path(out).with_suffix('.html')}")
    return table.exit_code()
