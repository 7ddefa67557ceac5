"""Level 0: every file has its hash, nothing is missing or extra, and the parts fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files, records
from zpdbench import study as studies
from zpdbench.artifacts import crate, evidence, layout, manifest, reading, sign
from zpdbench.artifacts.archive import Contents
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.artifacts.reading import BadFileError
from zpdbench.errors import UserError
from zpdbench.study import Study


@dataclass(frozen=True)
class Bundle:
    """A bundle that passed the checks without which nothing else can be asked."""

    folder: Path
    hashes: dict[str, str]
    facts: dict[str, Any]
    study: Study
    included: layout.Included
    records: dict[str, evidence.Record]
    foreign_code: tuple[str, ...] = ()
    """Functions that the study's own benchmark definitions name and the reviewer does not trust."""

    def path(self, name: str) -> Path:
        """A file of the bundle."""
        return self.folder / name


@dataclass(frozen=True)
class Outside:
    """What a reviewer knows from elsewhere.

    Attributes:
        digest: 64 hex digits, of the manifest.
        signature: the bundle's, if there is one.
        signers: whose signature counts; that there is one is then asked for.
        trusted: functions that a definition in the bundle may call.
        registration: 12 to 64 hex digits of what was registered, as published before the runs.
    """

    digest: str | None = None
    signature: Path | None = None
    signers: Path | None = None
    trusted: tuple[str, ...] = ()
    registration: str | None = None


def check(contents: Contents, outside: Outside, table: Table) -> Bundle | None:
    """Add level 0's rows; the bundle if its parts could be read, else None."""
    if contents.refusals:
        for entry, reason in contents.refusals[:50]:
            table.add(
                0, "the bundle can be unpacked safely", entry, DIFFERS, why=f"refused: {reason}"
            )
        return None
    table.add(0, "the bundle can be unpacked safely", "", REPRODUCED, got=len(contents.hashes))
    hashes = dict(contents.hashes)
    if hashes.pop(manifest.NAME, None) is None:
        table.add(0, "it has a manifest", manifest.NAME, DIFFERS, got="absent")
        return None
    path = contents.folder / manifest.NAME
    try:
        if path.stat().st_size > 256 << 20:
            raise manifest.ManifestError("is larger than 256 MiB")
        data = path.read_bytes()
        listed = manifest.parse(data)
    except manifest.ManifestError as error:
        table.add(0, "its manifest can be read", manifest.NAME, DIFFERS, why=str(error))
        return None
    _check_identity(data, path, outside, table)
    _check_files(listed, hashes, table)
    return _check_parts(contents.folder, hashes, outside, table)


def _check_identity(data: bytes, path: Path, outside: Outside, table: Table) -> None:
    digest = manifest.digest(data)
    claim = "it is the bundle that the authors published"
    if outside.digest is not None:
        verdict = REPRODUCED if outside.digest == digest else DIFFERS
        table.add(0, claim, manifest.NAME, verdict, expected=outside.digest, got=digest)
    else:
        why = "no --digest was given: so far the bundle agrees with itself only"
        table.add(0, claim, manifest.NAME, NOT_CHECKED, got=digest, why=why)
    claim = "its authors signed it"
    if outside.signature is None and outside.signers is not None:
        why = "--signers asks for a signature, and there is none beside the bundle"
        table.add(0, claim, manifest.NAME, DIFFERS, expected="a signature", got="unsigned", why=why)
        return
    if outside.signature is None:
        table.add(0, claim, manifest.NAME, NOT_CHECKED, got="unsigned", why="no signature given")
        return
    if outside.signers is None:
        why = "signed; give --signers FILE to say whose signature counts"
        table.add(0, claim, outside.signature.name, NOT_CHECKED, why=why)
        return
    try:
        signer = sign.check(path, outside.signature, outside.signers)
    except UserError as error:
        table.add(0, claim, outside.signature.name, DIFFERS, why=str(error))
    else:
        table.add(0, claim, outside.signature.name, REPRODUCED, got=signer)


def _check_files(listed: Mapping[str, str], hashes: Mapping[str, str], table: Table) -> None:
    for name in sorted(set(listed) | set(hashes)):
        if name not in hashes:
            table.add(
                0, "file has its hash", name, DIFFERS, expected=listed[name], got="absent",
                why="the manifest lists it",
            )  # fmt: skip
        elif name not in listed:
            table.add(
                0, "file has its hash", name, DIFFERS, expected="absent", got=hashes[name],
                why="the manifest does not list it",
            )  # fmt: skip
        else:
            verdict = REPRODUCED if listed[name] == hashes[name] else DIFFERS
            table.add(
                0, "file has its hash", name, verdict, expected=listed[name], got=hashes[name]
            )


def another_version(facts: Mapping[str, Any]) -> str:
    """What to say where another version of the code made a bundle; "" where this one did."""
    code = facts["code"]
    if code["package"] == records.code_digest():
        return ""
    checkout = f"git checkout {code['commit'][:40]}" if code["commit"] else "which has no commit"
    changed = " and apply its changes, see workflow/" if code["diff"] else ""
    return f"the bundle was made by another version ({checkout}{changed})"


def _check_registration(study: Study, published: str | None, table: Table) -> None:
    """What was registered is what this bundle's study is; nothing to say where nothing was."""
    digest, claimed = study.resolved_hypotheses.digest(), study.hypotheses.registered
    claim = "it is the study that was registered"
    if published is not None:
        verdict = REPRODUCED if digest.startswith(published) else DIFFERS
        table.add(0, claim, layout.STUDY, verdict, expected=published, got=digest)
    elif claimed:
        why = "no --registration was given: its own digest can have been put in after the runs"
        table.add(0, claim, layout.STUDY, NOT_CHECKED, got=digest, why=why)


def _check_parts(
    folder: Path, hashes: dict[str, str], outside: Outside, table: Table
) -> Bundle | None:
    name = layout.FACTS
    try:
        facts = evidence.parse_facts(reading.read_json(folder / name, 4 << 20))
        if other := another_version(facts):
            table.context[0] = other
        name = layout.STUDY
        reading.check_yaml(folder / name)
        study = studies.load(folder / name)
        if reason := layout.too_large(study):
            raise BadFileError(reason)
        name = "records"
        found = evidence.read_records(folder, hashes)
    except (BadFileError, UserError, OSError, RecursionError) as error:
        why = str(error).replace(f"{folder}/", "")
        table.add(0, "its parts can be read", name, DIFFERS, why=why)
        return None
    included = layout.included_of(facts)
    wrong, foreign = evidence.check_definitions(folder, study, outside.trusted)
    bundle = Bundle(folder, hashes, facts, study, included, found, tuple(foreign))
    outward = evidence.check_study(study)
    _report(
        table,
        "the configuration stays inside",
        [evidence.Finding(layout.STUDY, "", "", why) for why in sorted(set(outward))],
        layout.STUDY,
    )
    if outward:
        return None
    _check_registration(study, outside.registration, table)
    expected = layout.required(study, included)
    _report(
        table,
        "it holds what its configuration asks for",
        [
            *(
                evidence.Finding(n, "present", "absent", "the grid has it")
                for n in sorted(expected - set(hashes))
            ),
            *(
                evidence.Finding(n, "absent", "present", "the grid has no such file")
                for n in layout.foreign(hashes, study, included)
            ),
        ],
        f"{len(expected)} files",
    )
    _report(
        table,
        "adapters and checkpoints are plain weights with their own hashes",
        evidence.check_folders(folder, study, included, hashes),
        f"{len(included.adapters)} runs, {len(included.checkpoints)} models",
    )
    _report(
        table,
        "what the jobs recorded is one chain, with these settings",
        evidence.check_chain(folder, study, included, hashes, found),
        f"{len(found)} jobs",
    )
    _check_definitions(bundle, wrong, table)
    _check_descriptions(bundle, table)
    return bundle


def _check_definitions(bundle: Bundle, wrong: list[evidence.Finding], table: Table) -> None:
    claim = "the study's own benchmarks are plain definitions"
    names = layout.definitions(bundle.study)
    if names or wrong:
        _report(table, claim, wrong, ", ".join(names.values()))
    for function in bundle.foreign_code:
        why = "no part of ZPD-Bench; read it, install it, then allow it by --trust"
        table.add(0, claim, function, NOT_CHECKED, why=why, core=True)


def _report(table: Table, claim: str, findings: list[evidence.Finding], what: str) -> None:
    for finding in findings[:50]:
        table.add(
            0, claim, finding.artefact, DIFFERS, expected=finding.expected, got=finding.got,
            why=finding.why,
        )  # fmt: skip
    if not findings:
        table.add(0, claim, what, REPRODUCED)


def _check_descriptions(bundle: Bundle, table: Table) -> None:
    """bundle.json, the crate's metadata and the page for people say what the files say."""
    facts, study = bundle.facts, bundle.study
    derived = evidence.derive(study, bundle.records)
    for key, value in derived.items():
        follows, given = (files.canonical_json(v) for v in (value, facts.get(key)))
        table.add(
            0, f"it says what follows from its configuration and records: {key}", layout.FACTS,
            REPRODUCED if follows == given else DIFFERS, expected=follows, got=given,
        )  # fmt: skip
    _check_metadata(bundle, table)
    package = {
        n.removeprefix("workflow/zpdbench/"): h
        for n, h in bundle.hashes.items()
        if n.startswith("workflow/zpdbench/")
    }
    digest = files.digest(package)
    table.add(
        0, "the code in it is the code that made it", "workflow/zpdbench",
        REPRODUCED if facts["code"]["package"] == digest else DIFFERS,
        expected=facts["code"]["package"], got=digest,
    )  # fmt: skip
    others = sorted({r["code"] for r in bundle.records.values()} - {digest})
    if others:
        count = sum(r["code"] != digest for r in bundle.records.values())
        table.add(
            0, "all jobs ran this code", "records", NOT_CHECKED, expected=digest, got=others[0],
            why=f"{count} jobs ran with other states of the code, which is not in the bundle",
        )  # fmt: skip
        # A difference further on may come of that.
        table.context.setdefault(0, f"{count} jobs ran with other states of the code")
    claim = "the description says what the files say"
    own = Path(crate.__file__)
    if package.get("artifacts/crate.py") != files.sha256_file(own):
        why = "it was written by another version of the code"
        table.add(0, claim, layout.CRATE, NOT_CHECKED, why=why)
        return
    sizes = {n: bundle.path(n).stat().st_size for n in bundle.hashes}
    try:
        texts = {
            layout.CRATE: crate.metadata(facts, bundle.records, bundle.hashes, sizes),
            layout.README: crate.readme(facts, len(study.seeds), len(study.runs)),
        }
    except (KeyError, TypeError, AttributeError) as error:
        table.add(0, claim, layout.FACTS, DIFFERS, why=f"not of this format ({error!r})")
        return
    for name, text in texts.items():
        path = bundle.path(name)
        same = path.is_file() and path.read_bytes() == text.encode("utf-8")
        table.add(0, claim, name, REPRODUCED if same else DIFFERS)


def _check_metadata(bundle: Bundle, table: Table) -> None:
    """The linked data give every file, and each with its own hash, whatever version wrote them."""
    claim = "its linked data give every file with its hash"
    held = {n: h for n, h in bundle.hashes.items() if n != layout.CRATE}
    try:
        graph = reading.read_json(bundle.path(layout.CRATE))["@graph"]
        told = {e["@id"]: str(e.get("sha256")) for e in graph if "File" in _types(e)}
    except (BadFileError, KeyError, TypeError, AttributeError) as error:
        table.add(0, claim, layout.CRATE, DIFFERS, why=f"not of this format ({error})")
        return
    wrong = sorted(n for n in {*held, *told} if held.get(n) != told.get(n))
    for name in wrong[:20]:
        table.add(
            0, claim, name, DIFFERS, expected=held.get(name, "absent"),
            got=told.get(name, "absent"), why=f"{len(wrong)} such files",
        )  # fmt: skip
    if not wrong:
        table.add(0, claim, layout.CRATE, REPRODUCED, got=f"{len(held)} files")


def _types(entity: Any) -> list[str]:
    kind = entity["@type"]
    return kind if isinstance(kind, list) else [kind]
