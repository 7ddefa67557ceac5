"""ro-crate-metadata.json: the bundle as a Workflow Run RO-Crate, and README.md for people.

Both are pure functions of the bundle's facts, records and files, so that a verifier writes them
again and compares. Profiles: Workflow Run Crate 0.5 (https://w3id.org/ro/wfrun/workflow/0.5),
Workflow RO-Crate 1.0, RO-Crate 1.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zpdbench.artifacts import layout, manifest

_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_TYPES = {
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".tsv": "text/tab-separated-values",
    ".parquet": "application/vnd.apache.parquet",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".md": "text/markdown",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
}
_WORKFLOW = "workflow/Snakefile"
_BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
_RUN = "#run"

Json = dict[str, Any]


def metadata(
    facts: Mapping[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    hashes: Mapping[str, str],
    sizes: Mapping[str, int],
) -> str:
    """The metadata file's text.

    Args:
        facts: bundle.json.
        records: name of a record's file -> what the job recorded.
        hashes: SHA-256 (hex) of every file but this one and the manifest.
        sizes: their bytes.
    """
    names = sorted(n for n in hashes if n not in (layout.CRATE, manifest.NAME))
    folders = sorted(
        {f"{out}/" for r in records.values() for out in r["outputs"] if _is_folder(out)}
    )
    held = [f for f in folders if any(n.startswith(f) for n in names)]
    graph: list[Json] = [
        {
            "@id": layout.CRATE,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": [
                {"@id": "https://w3id.org/ro/crate/1.1"},
                {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"},
            ],
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": facts["name"],
            "description": facts["description"],
            "datePublished": facts["date"],
            "license": {"@id": facts["license"]},
            "conformsTo": [{"@id": profile} for profile in _PROFILES],
            "author": {"@id": "#authors"},
            "mainEntity": {"@id": _WORKFLOW},
            "hasPart": [{"@id": name} for name in sorted([*names, *held])],
            "mentions": [{"@id": _RUN}, *({"@id": _job_id(r)} for r in _ordered(records))],
        },
        *(
            {"@id": profile, "@type": "CreativeWork", "name": name, "version": profile[-3:]}
            for profile, name in _PROFILES.items()
        ),
        {
            "@id": facts["license"],
            "@type": "CreativeWork",
            "name": facts["license"].rsplit("/", 1)[-1],
            "identifier": facts["license"],
            "description": "The licence of the study's own files; items and corpora keep theirs.",
        },
        *_software(facts),
    ]
    version = facts["code"]["version"]
    graph += [_file(n, hashes[n], sizes[n], version) for n in names]
    graph += [{"@id": f, "@type": "Dataset", "name": f} for f in folders]
    known = {entity["@id"] for entity in graph}
    graph += _actions(facts, records, hashes, known)
    context = [
        "https://w3id.org/ro/crate/1.1/context",
        {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"},
    ]
    value = {"@context": context, "@graph": graph}
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _is_folder(name: str) -> bool:
    return name.startswith(("checkpoints/", "adapters/"))


def _single(values: list[Json]) -> Any:
    """One value for one, as compacted JSON-LD has it."""
    return values[0] if len(values) == 1 else values


def _ordered(records: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [records[name] for name in sorted(records)]


def _job_id(record: Mapping[str, Any]) -> str:
    return f"#{record['rule']}:{next(iter(sorted(record['outputs'])), '')}"


def _file(name: str, digest: str, size: int, version: str) -> Json:
    suffix = name[name.rfind(".") :] if "." in name.rsplit("/", 1)[-1] else ""
    entity: Json = {
        "@id": name,
        "@type": "File",
        "name": name,
        "sha256": digest,
        "contentSize": str(size),
        "encodingFormat": _TYPES.get(suffix, "text/plain"),
    }
    if name == layout.README:
        entity["about"] = {"@id": "./"}
    if name == _WORKFLOW:
        entity |= {
            "conformsTo": {"@id": _BIOSCHEMAS},
            "version": version,
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": "ZPD-Bench",
            "programmingLanguage": {
                "@id": "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
            },
        }
    return entity


def _software(facts: Mapping[str, Any]) -> list[Json]:
    code = facts["code"]
    version = code["version"] + (f"+{code['commit'][:12]}" if code["commit"] else "")
    return [
        {
            "@id": "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
            "@type": "ComputerLanguage",
            "name": "Snakemake",
            "identifier": {"@id": "https://doi.org/10.1093/bioinformatics/bts480"},
            "url": {"@id": "https://snakemake.readthedocs.io"},
        },
        {
            "@id": "#zpdbench",
            "@type": "SoftwareApplication",
            "name": "zpdbench",
            "softwareVersion": version,
            "sha256": code["package"],
        },
        {"@id": "#authors", "@type": "Organization", "name": "The bundle's authors"},
    ]


def _actions(
    facts: Mapping[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    hashes: Mapping[str, str],
    known: set[str],
) -> list[Json]:
    machines: dict[str, Json] = {}
    actions: list[Json] = []
    outside: dict[str, Json] = {}

    def refer(name: str, digest: str) -> Json:
        for identifier in (name, f"{name}/"):
            if identifier in known:
                return {"@id": identifier}
        # Named by its hash only: left out of the bundle, or not free to be copied.
        identifier = f"#sha256:{digest}"
        outside[identifier] = {
            "@id": identifier,
            "@type": "CreativeWork",
            "name": name,
            "sha256": digest,
        }
        return {"@id": identifier}

    for record in _ordered(records):
        machine = {k: v for k, v in record["machine"].items() if k != "packages"}
        key = f"#machine:{json.dumps(machine, sort_keys=True)}"
        environment = machines.setdefault(
            key,
            {
                "@id": f"#machine-{len(machines) + 1}",
                "@type": "PropertyValue",
                "name": "machine",
                "value": json.dumps(machine, sort_keys=True),
            },
        )
        actions.append(
            {
                "@id": _job_id(record),
                "@type": "CreateAction",
                "name": f"{record['rule']} {' '.join(record['wildcards'].values())}".strip(),
                "description": " ".join(record["command"]),
                "agent": {"@id": "#authors"},
                "instrument": {"@id": "#zpdbench"},
                "object": [
                    {"@id": layout.STUDY},
                    {"@id": environment["@id"]},
                    *(refer(n, d) for n, d in sorted(record["inputs"].items())),
                ],
                "result": _single([refer(n, d) for n, d in sorted(record["outputs"].items())]),
            }
        )
    results = sorted(n for n in hashes if layout.is_table(n) or layout.is_figure(n))
    run = {
        "@id": _RUN,
        "@type": "CreateAction",
        "name": f"Run of {facts['name']}",
        "instrument": {"@id": _WORKFLOW},
        "description": "The whole grid; its jobs are the other actions. Times are left out: they "
        "say nothing about a result, and a bundle has the same bytes every time.",
        "agent": {"@id": "#authors"},
        "object": {"@id": layout.STUDY},
        "result": [{"@id": name} for name in results],
    }
    return [run, *machines.values(), *outside.values(), *actions]


def readme(facts: Mapping[str, Any], seeds: int, runs: int) -> str:
    """README.md: what this is and how it is checked."""
    code = facts["code"]
    commit = f", commit {code['commit'][:12]}" if code["commit"] else ""
    changed = " (with changes; the code as it ran is in workflow/)" if code["diff"] else ""
    return f"""# {facts["name"]}

{facts["description"]}

This is a bundle of ZPD-Bench {code["version"]}{commit}{changed}: {runs} runs, {seeds} seeds, their
configuration, items, answers, verdicts and statistics, and what each job recorded of itself. It is
a Workflow Run RO-Crate; `MANIFEST.sha256` lists every other file.

Check it with ZPD-Bench installed (no GPU, no network):

    zpdbench verify BUNDLE --level 2 --out verification.tsv --digest DIGEST

DIGEST is the SHA-256 of `MANIFEST.sha256`, which the authors publish elsewhere: in the paper, say.
Without it a bundle only agrees with itself. `sha256sum -c MANIFEST.sha256` checks the files alone.

| level | what is checked |
|---|---|
| 0 | every file has its hash, nothing is missing or extra, the jobs' records fit together |
| 1 | the statistics follow from the verdicts |
| 2 | the verdicts follow from the answers |
| 3 | a random sample of the answers comes out again |
| 4 | one training run comes out again |
"""
