"""`zpdbench verify`: which of a bundle's claims hold, which do not, and which were not checked."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files, records
from zpdbench.artifacts import archive, findings, level0, level1, level2, level3, level4, sign
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, Table, plain
from zpdbench.artifacts.level0 import Bundle, Outside
from zpdbench.artifacts.workshop import Workshop, localise
from zpdbench.errors import UserError
from zpdbench.study import Study


@dataclass(frozen=True)
class Effort:
    """How far a verification goes.

    Attributes:
        level: 0 to 4, each with those below.
        seconds: for levels 3 and 4 together.
        seed: of their random samples: the reviewer's, not the authors'.
        jobs: processes at once.
    """

    level: int
    seconds: float = 1800.0
    seed: int = 0
    jobs: int = 2


def main(args: argparse.Namespace) -> int:
    """Check `args.bundle` up to `args.level` and write `args.out` with a page beside it.

    Returns:
        0: all that was asked was checked and holds; 1: something differs; 3: nothing differs, but
        something that a level is not done without could not be checked.

    Raises:
        UserError: no bundle, or a digest that is none.
    """
    # The verbs that check it run in a folder of their own. Its name stays that of a link.
    path = Path(args.bundle).absolute()
    if not path.exists():
        raise UserError("no such bundle", where=args.bundle, fix="give a crate.zip or its folder")
    outside = Outside(
        digest=_digest(args.digest),
        signature=_signature(path, args.signature),
        signers=Path(args.signers) if args.signers is not None else None,
        trusted=tuple(args.trust),
        registration=_registration(args.registration),
    )
    if args.data:
        os.environ["ZPDBENCH_DATA"] = str(Path(args.data).resolve())
    # Drawn after the bundle was written, so that no author knows what will be looked at.
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    effort = Effort(args.level, 60.0 * args.minutes, seed, max(1, args.jobs))
    with _scratch(args.scratch) as scratch:
        bundle, table = check(path, Path(scratch), outside, effort)
        write(args.out, path.name, bundle, table)
    return report(args.out, bundle, table)


def _scratch(given: str | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder in the one given, else in the system's.

    Raises:
        UserError: there cannot be one.
    """
    try:
        folder = None if given is None else Path(given).resolve(strict=True)
        return tempfile.TemporaryDirectory(prefix="zpdbench-verify-", dir=folder)
    except OSError as error:
        raise UserError(
            f"no folder to unpack in ({error.strerror})",
            where=str(given or tempfile.gettempdir()),
            fix="give one of yours by --scratch",
        ) from error


def check(
    path: Path,
    scratch: Path,
    outside: Outside,
    effort: Effort,
    workshop: Callable[[Path, Study], Workshop] = Workshop,
) -> tuple[Bundle | None, Table]:
    """All checks of a bundle.

    Args:
        path: a zip file or a folder.
        scratch: an empty folder of the caller's.
        workshop: what runs the verbs.

    Returns:
        The bundle, None if it could not even be read, and the table.
    """
    table = Table(effort.level)
    folder = scratch / "bundle"
    folder.mkdir(parents=True)
    contents = archive.open_bundle(path, folder)
    bundle = level0.check(contents, outside, table)
    if bundle is None:
        if effort.level:
            print("level 0 failed: nothing further was looked at", file=sys.stderr)
        return None, table
    if differing := _machines_in_short(bundle):
        table.context[1] = differing
    here = localise(bundle.study, bundle.folder)
    _run_levels(bundle, workshop(scratch / "work", here), table, effort)
    return bundle, table


def _machines_in_short(bundle: Bundle) -> str:
    """What the authors' machine had otherwise, in one line to stand beside a difference."""
    found = compare_machines(bundle)
    parts = [
        f"{key} {there} there, {here} here"
        for key, (there, here) in found.items()
        if there != here and key not in ("cpu_flags", "cpus", "system")
    ]
    return "machines: " + "; ".join(parts) if parts else ""


def _run_levels(bundle: Bundle, workshop: Workshop, table: Table, effort: Effort) -> None:
    """Levels 1 and up; each is looked at even if one below found something."""
    share = effort.seconds / 2 if effort.level == 4 else effort.seconds
    started = time.monotonic()

    def left() -> float:
        return max(effort.seconds - (time.monotonic() - started), 1.0)

    levels: dict[int, Callable[[], None]] = {
        1: lambda: level1.check(bundle, workshop, table, workers=effort.jobs),
        2: lambda: level2.check(bundle, workshop, table, workers=effort.jobs),
        3: lambda: level3.check(bundle, workshop, table, seconds=share, seed=effort.seed),
        4: lambda: level4.check(bundle, workshop, table, seconds=left(), seed=effort.seed),
    }
    for level in range(1, effort.level + 1):
        if level == 3:
            started = time.monotonic()
        if reason := _reason_to_skip(level, bundle, table):
            table.add(level, "the level can be run", "", NOT_CHECKED, why=reason, core=True)
            continue
        try:
            levels[level]()
        except Exception as error:  # whatever a hostile file provokes is a finding, not a crash
            why = f"{type(error).__name__}: {error}"
            table.add(level, "the level can be run to its end", "", DIFFERS, why=why)


def _reason_to_skip(level: int, bundle: Bundle, table: Table) -> str:
    """Why a level is not begun at all; "" if it may be."""
    if level >= 3 and table.count(DIFFERS, 0):
        return "level 0 found differences: no weights of this bundle are loaded"
    if level >= 2 and bundle.foreign_code:
        return f"its benchmarks call {', '.join(bundle.foreign_code)}, which --trust does not name"
    return ""


def _digest(given: str | None) -> str | None:
    """A digest as authors publish it, to 64 hex digits.

    Raises:
        UserError: it is none; an empty one would check nothing.
    """
    fix = "give the 64 hex digits that the authors published"
    return _hex(given, 64, "--digest", fix, prefix="sha256:")


def _registration(given: str | None) -> str | None:
    """The digest of a registration, 12 to 64 of its hex digits.

    Raises:
        UserError: it is none.
    """
    fix = "give what zpdbench register printed, 12 to 64 hex digits"
    return _hex(given, 12, "--registration", fix)


def _hex(given: str | None, least: int, flag: str, fix: str, prefix: str = "") -> str | None:
    """`least` to 64 hex digits in lower case, without their prefix; None where none were given."""
    if given is None:
        return None
    text = given.strip().lower().removeprefix(prefix)
    if not re.fullmatch(rf"[0-9a-f]{{{least},64}}", text):
        raise UserError(
            f"{plain(given)[:80]!r} is no digest", where=flag, fix=f"{fix}, or leave it out"
        )
    return text


def _signature(bundle: Path, given: str | None) -> Path | None:
    if given is not None:
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
    page = files.beside(out, ".html")
    findings.write_page(page, f"Verification of {name}", table, facts, machines)


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
    for row in table.open_core()[:10]:
        why = f" ({row.why})" if row.why else ""
        print(f"open: level {row.level}: {row.artefact}: {row.claim}{why}")
    for level in table.unchecked_levels():
        print(f"level {level} was asked for and could not be checked")
    page = "" if files.is_stream(out) else f"; the page is {Path(out).with_suffix('.html')}"
    print(f"{out}: {len(table.rows)} checks{page}")
    return table.exit_code()
