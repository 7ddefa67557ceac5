"""Level 0: every file has its hash, nothing is missing or extra, and the parts fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files
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

    def path(self, name: str) -> Path:
        """A file of the bundle."""
        return self.folder / name


@dataclass(frozen=True)
class Outside:
    """What a reviewer knows from elsewhere."""

    digest: str | None = None
    signature: Path | None = None
    signers: Path | None = None


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
    return _check_parts(contents.folder, hashes, table)


def _check_identity(data: bytes, path: Path, outside: Outside, table: Table) -> None:
    digest = manifest.digest(data)
    claim = "it is the bundle that the authors published"
    if outside.digest:
        wanted = outside.digest.strip().lower().removeprefix("sha256:")
        verdict = REPRODUCED if wanted == digest else DIFFERS
        table.add(0, claim, manifest.NAME, verdict, expected=wanted, got=digest)
    else:
        why = "no --digest was given: so far the bundle agrees with itself only"
        table.add(0, claim, manifest.NAME, NOT_CHECKED, got=digest, why=why)
    claim = "its authors signed it"
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


def _check_parts(folder: Path, hashes: dict[str, str], table: Table) -> Bundle | None:
    name = layout.FACTS
    try:
        facts = evidence.parse_facts(reading.read_json(folder / name, 4 << 20))
        name = layout.STUDY
        reading.check_yaml(folder / name)
        study = studies.load(folder / name)
        name = "records"
        found = evidence.read_records(folder, hashes)
    except (BadFileError, UserError, OSError, RecursionError) as error:
        why = str(error).replace(f"{folder}/", "")
        table.add(0, "its parts can be read", name, DIFFERS, why=why)
        return None
    included = layout.included_of(facts)
    bundle = Bundle(folder, hashes, facts, study, included, found)
    outward = evidence.check_study(study)
    _report(
        table,
        "the configuration stays inside",
        [evidence.Finding(layout.STUDY, "", "", why) for why in sorted(set(outward))],
        layout.STUDY,
    )
    if outward:
        return None
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
    _check_descriptions(bundle, table)
    return bundle


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
    digest = evidence.study_digest(study)
    table.add(
        0, "it describes this configuration", layout.FACTS,
        REPRODUCED if facts["study"] == digest else DIFFERS, expected=digest, got=facts["study"],
    )  # fmt: skip
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
