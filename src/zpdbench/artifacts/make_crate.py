"""`zpdbench make-crate`: a study's evidence as one zip file, the same bytes every time."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zpdbench import __version__, files, records
from zpdbench import study as studies
from zpdbench.artifacts import archive, crate, evidence, layout, manifest, secrets
from zpdbench.artifacts.reading import BadFileError
from zpdbench.errors import UserError
from zpdbench.progress import track
from zpdbench.study import Study

DEFAULT_LICENSE = "https://spdx.org/licenses/CC-BY-4.0"


def main(args: argparse.Namespace) -> None:
    """Write `args.out` from the results folder that `args.study` lies in."""
    lock = Path(args.study)
    private = studies.load(lock)
    study = records.portable(private)
    included = layout.plan(study, args.without or [], args.sample)
    root = Path(args.workflow or Path(records.__file__).parents[2])
    members = collect(
        study,
        lock.parent,
        included,
        root,
        license=args.license or DEFAULT_LICENSE,
        date=args.date,
        definitions=_definitions(private),
    )
    check_secrets(members, [lock.parent, root, Path(records.__file__).parent])
    listing = members[manifest.NAME]
    assert isinstance(listing, bytes)
    with files.atomic_path(args.out) as temporary:
        written = archive.write_zip(temporary, members)
        for name, digest in manifest.parse(listing).items():
            if written[name] != digest:
                raise UserError(
                    "changed while the bundle was written",
                    where=name,
                    fix="let the workflow end first, then make the bundle again",
                )
        size = temporary.stat().st_size
    print(f"{args.out}: {len(members)} files, {size / 2**20:.1f} MiB")
    print(f"digest {manifest.digest(listing)}  (publish this: the hash of {manifest.NAME})")


def collect(
    study: Study,
    results: Path,
    included: layout.Included,
    root: Path,
    *,
    license: str = DEFAULT_LICENSE,
    date: str | None = None,
    definitions: Mapping[str, Path] | None = None,
) -> dict[str, Path | bytes]:
    """A bundle's members: name -> file, or its bytes.

    Args:
        study: the portable study.
        results: its results folder.
        included: what to put in.
        root: the workflow's folder, with its Snakefile.
        license: a URL; of the study's own files.
        date: of publication; None: the commit's.
        definitions: name in the bundle -> file, of benchmarks that the study defines itself.

    Raises:
        UserError: the study is not complete, or a result is not what its job recorded.
    """
    members: dict[str, Path | bytes] = dict(_results(study, results, included))
    members |= _workflow(root)
    members |= definitions or {}
    hashes = _hash(members)
    found = _records(results, members)
    prefix = "workflow/zpdbench/"
    package = files.digest(
        {n.removeprefix(prefix): h for n, h in hashes.items() if n.startswith(prefix)}
    )
    facts = _facts(study, results, included, root, license, date, found, package)
    _check(study, results, included, hashes, found)
    texts = {
        layout.STUDY: studies.lock_text(study),
        layout.FACTS: evidence.dump(facts),
        layout.README: crate.readme(facts, len(study.seeds), len(study.runs)),
    }
    for name, text in texts.items():
        members[name] = text.encode("utf-8")
        hashes[name] = hashlib.sha256(text.encode("utf-8")).hexdigest()
    text = crate.metadata(facts, found, hashes, {n: _size(m) for n, m in members.items()})
    members[layout.CRATE] = text.encode("utf-8")
    hashes[layout.CRATE] = hashlib.sha256(text.encode("utf-8")).hexdigest()
    members[manifest.NAME] = manifest.text(hashes).encode("utf-8")
    lacking = layout.required(study, included) - set(members)
    if lacking:
        raise UserError(
            f"{len(lacking)} files are missing, first {sorted(lacking)[0]}",
            where=str(results),
            fix="run the workflow to its end first",
        )
    return members


def _definitions(study: Study) -> dict[str, Path]:
    """Name in the bundle -> the file, as the jobs found it, of each definition of the study's own.

    Raises:
        UserError: a file is gone.
    """
    found = {}
    for benchmark, name in layout.definitions(study).items():
        path = Path(str(study.benchmarks[benchmark].definition))
        if not path.is_file():
            raise UserError(
                "no such definition",
                where=f"benchmarks.{benchmark}.definition {path}",
                fix="call this where the workflow was called, or put the file back",
            )
        found[name] = path
    return found


def check_secrets(members: Mapping[str, Path | bytes], folders: list[Path]) -> None:
    """Refuse to write a bundle that would give away a token, a user or a folder.

    Raises:
        UserError: naming the file and what kind of thing it holds, never the thing itself.
    """
    unwanted = secrets.needles(folders)
    for name in sorted(members):
        kinds = secrets.scan(name, members[name], unwanted)
        if kinds:
            raise UserError(
                f"holds {kinds[0]}, which must not be published",
                where=name,
                fix="remove it at its source and run that job again",
            )


def _results(study: Study, results: Path, included: layout.Included) -> dict[str, Path]:
    paths = layout.Paths("results")

    def name(path: str) -> str:
        return path.removeprefix("results/")

    wanted: list[str] = []
    if included.items:
        wanted += [name(paths.items(b)) for b in study.benchmarks]
    wanted += [name(paths.scores(*run)) for run in study.all_runs]
    if included.generations:
        wanted += [name(paths.generations(*chunk)) for chunk in study.chunks]
    if included.corpus:
        wanted.append(name(paths.corpus(study.corpus.name)))
    for model in included.checkpoints:
        folder = results / name(paths.checkpoint(model))
        wanted += [f"{name(paths.checkpoint(model))}/{n}" for n in _folder_files(folder)]
    for run in study.runs:
        adapter = name(paths.adapter(*run))
        wanted.append(f"{adapter}/MANIFEST.json")
        if included.traces:
            wanted.append(f"{adapter}/trace.parquet")
        if adapter in included.adapters:
            wanted += [f"{adapter}/{n}" for n in layout.adapter_files(study)]
    found = [p.name for p in results.glob("*.tsv") if layout.is_table(p.name)]
    # A verification's own table lies beside the bundle, not in it; the simulations are of no study.
    wanted += [n for n in found if n not in ("verification.tsv", "validation.tsv")]
    wanted += [f"figures/{p.name}" for p in (results / "figures").glob("*") if p.is_file()]
    wanted.append(layout.REPORT)
    for path in (results / "records").rglob("*.json"):
        output = path.relative_to(results / "records").as_posix().removesuffix(".json")
        if (results / output).exists():
            wanted.append(layout.record_name(output))
    return {n: results / n for n in sorted(set(wanted)) if (results / n).is_file()}


def _folder_files(folder: Path) -> list[str]:
    if not (folder / "MANIFEST.json").is_file():
        return []
    return ["MANIFEST.json", *files.read_manifest(folder)["files"]]


def _workflow(root: Path) -> dict[str, bytes]:
    """The rules, locks and images' recipe from the workflow's folder, the package from its own.

    Read at once: someone may be editing them.
    """
    found = {"workflow/Snakefile": root / "Snakefile"}
    found |= {f"workflow/rules/{p.name}": p for p in (root / "rules").glob("*.smk")}
    found |= {f"workflow/envs/{p.name}": p for p in (root / "envs").glob("*.txt")}
    found |= {f"workflow/envs/{p.name}": p for p in (root / "envs").glob("*.in")}
    recipe = ("debian.lock", "exceptions.txt", "rootfs.sh", "zpdbench")
    found |= {f"workflow/containers/{n}": root / "containers" / n for n in recipe}
    package = Path(records.__file__).parent
    found |= {f"workflow/zpdbench/{n}": package / n for n in records.code_files(package)}
    return {n: p.read_bytes() for n, p in found.items() if p.is_file()}


def _hash(members: Mapping[str, Path | bytes]) -> dict[str, str]:
    hashes = {}
    with track("hashes", len(members), "files") as progress:
        for name in sorted(members):
            source = members[name]
            hashes[name] = (
                hashlib.sha256(source).hexdigest()
                if isinstance(source, bytes)
                else files.sha256_file(source)
            )
            progress.advance()
    return hashes


def _size(member: Path | bytes) -> int:
    return len(member) if isinstance(member, bytes) else member.stat().st_size


def _records(results: Path, members: Mapping[str, Any]) -> dict[str, evidence.Record]:
    try:
        return evidence.read_records(results, members)
    except BadFileError as error:
        raise UserError(
            str(error), where=str(results), fix="delete that result and run the workflow again"
        ) from error


def _check(
    study: Study,
    results: Path,
    included: layout.Included,
    hashes: Mapping[str, str],
    found: Mapping[str, evidence.Record],
) -> None:
    problems = evidence.check_folders(results, study, included, hashes)
    problems += evidence.check_chain(results, study, included, hashes, found)
    if problems:
        first = problems[0]
        print(*(f"{p.artefact}: {p.why}" for p in problems[:20]), sep="\n", file=sys.stderr)
        raise UserError(
            f"{first.why} (expected {first.expected[:80]}, got {first.got[:80]}); "
            f"{len(problems)} such findings",
            where=str(results / first.artefact),
            fix="run the workflow to its end; delete what it does not make again itself",
        )


def _facts(
    study: Study,
    results: Path,
    included: layout.Included,
    root: Path,
    license: str,
    date: str | None,
    found: Mapping[str, evidence.Record],
    package: str,
) -> dict[str, Any]:
    commit, diff, committed = _version(root)
    facts = {
        **evidence.derive(study, found),
        "format": layout.FORMAT,
        "date": date or committed or _newest_day(results),
        "license": license,
        "included": included.as_json(),
        "code": {
            "version": __version__,
            "package": package,
            "commit": commit,
            "diff": diff,
        },
    }
    return evidence.parse_facts(facts)


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _version(root: Path) -> tuple[str | None, str | None, str | None]:
    """Commit, digest of what differs from it (None if nothing does) and the commit's day."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(os.fsdecode(top).strip()).resolve() != root.resolve():
        return None, None, None
    commit = _git(root, "rev-parse", "HEAD")
    day = _git(root, "show", "-s", "--format=%cs", "HEAD")
    watched = ["Snakefile", "rules", "src", "envs", "containers"]
    difference = _git(root, "diff", "--no-color", "--no-ext-diff", "HEAD", "--", *watched) or b""
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *watched)
    for name in sorted((untracked or b"").split(b"\0")):
        if name:
            difference += name + b"\0" + (root / os.fsdecode(name)).read_bytes()
    changed = hashlib.sha256(difference).hexdigest() if difference else None
    if commit is None or day is None:
        return None, None, None
    return commit.decode().strip(), changed, day.decode().strip()


def _newest_day(results: Path) -> str:
    """The day of h3a.tsv, UTC: where no repository tells a better one."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    path = results / "h3a.tsv"
    seconds = float(epoch) if epoch.isdigit() else path.stat().st_mtime if path.exists() else 0.0
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
