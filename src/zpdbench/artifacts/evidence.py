"""Does a bundle agree with itself? Files, manifests of folders, and the jobs' records as one chain.

Pure checks on what lies in a folder: the same ones before a bundle is written and when a stranger's
is verified.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files, records
from zpdbench.artifacts import layout, reading
from zpdbench.artifacts.reading import BadFileError
from zpdbench.benchmarks import definition, loaders
from zpdbench.errors import UserError
from zpdbench.study import EmbeddedModel, Study

Record = dict[str, Any]
_KEYS = {
    "rule", "wildcards", "command", "settings", "inputs", "outputs", "code", "machine",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that does not fit."""

    artefact: str
    expected: str
    got: str
    why: str


def read_records(folder: Path, names: Mapping[str, Any]) -> dict[str, Record]:
    """Every job's record of a bundle, by the name of its file.

    Raises:
        BadFileError: a record of another form; the message names it.
    """
    found: dict[str, Record] = {}
    for name in sorted(n for n in names if n.startswith("records/") and n.endswith(".json")):
        try:
            record = reading.read_json(folder / name, 4 << 20)
            _check_form(record)
        except BadFileError as error:
            raise BadFileError(f"{name} {error}") from error
        found[name] = record
    return found


def _check_form(record: Any) -> None:
    if not isinstance(record, dict) or set(record) != _KEYS:
        raise BadFileError("is no record of a job")
    for key in ("inputs", "outputs", "wildcards"):
        value = record[key]
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise BadFileError(f"{key}: not names with values")
    if not isinstance(record["command"], list) or not isinstance(record["machine"], dict):
        raise BadFileError("command or machine: not of this format")
    if not all(isinstance(w, str) for w in record["command"]) or not record["outputs"]:
        raise BadFileError("command or outputs: not of this format")
    if not isinstance(record["machine"].get("packages"), dict):
        raise BadFileError("machine: no packages")
    for key in ("rule", "code"):
        if not isinstance(record[key], str):
            raise BadFileError(f"{key}: no text")


def check_folders(
    folder: Path, study: Study, included: layout.Included, hashes: Mapping[str, str]
) -> list[Finding]:
    """Checkpoints and adapters against their own manifests, and weights against their format."""
    found: list[Finding] = []
    paths = layout.Paths("results")
    folders = {paths.adapter(*run).removeprefix("results/"): False for run in study.runs}
    folders |= {
        paths.checkpoint(model).removeprefix("results/"): True for model in included.checkpoints
    }
    for model in included.checkpoints:
        if not isinstance(study.models.get(model), EmbeddedModel):
            why = "only weights that the workflow made itself may be in it; others go by their hash"
            found.append(Finding(f"checkpoints/{model}"[:200], "absent", "present", why))
    for name, is_checkpoint in folders.items():
        listing = f"{name}/MANIFEST.json"
        if listing not in hashes:
            continue
        try:
            manifest = reading.read_json(folder / listing, 16 << 20)
            listed = manifest["files"]
            if not all(isinstance(v, str) for v in [*listed, *listed.values()]):
                raise TypeError
        except (BadFileError, KeyError, TypeError, AttributeError):
            found.append(Finding(listing, "a manifest of its folder", "none", "not of this format"))
            continue
        if files.digest(listed) != manifest.get("digest"):
            found.append(
                Finding(listing, files.digest(listed), str(manifest.get("digest")), "joint digest")
            )
        held = {
            n.removeprefix(f"{name}/"): h for n, h in hashes.items() if n.startswith(f"{name}/")
        }
        held.pop("MANIFEST.json")
        complete = is_checkpoint or name in included.adapters
        for file, digest in sorted(held.items()):
            if listed.get(file) != digest:
                why = "its folder's manifest has another hash"
                found.append(Finding(f"{name}/{file}", listed.get(file, "absent"), digest, why))
        wanted = set(listed) if complete else set()
        if complete and not included.traces:
            wanted.discard("trace.parquet")
        found += [
            Finding(f"{name}/{file}", listed[file], "absent", "its folder's manifest lists it")
            for file in sorted(wanted - set(held))
        ]
        if not is_checkpoint:
            expected = layout.adapter_files(study) | {"trace.parquet"}
            found += [
                Finding(listing, "absent", file, "a run's folder has no such file")
                for file in sorted(set(listed) ^ expected)
            ]
        for file in sorted(held):
            found += _check_weights(folder / name / file, f"{name}/{file}")
    return found


def _check_weights(path: Path, name: str) -> list[Finding]:
    try:
        if name.endswith(".safetensors"):
            reading.check_safetensors(path)
        elif name.endswith(".json"):
            value = reading.read_json(path, 256 << 20)
            if name.endswith(("config.json",)):
                _check_config(value)
    except BadFileError as error:
        return [Finding(name, "plain values", "something else", str(error))]
    return []


def _check_config(value: Any) -> None:
    """No code of the author's and no path out: what a loader might follow."""
    if not isinstance(value, dict):
        raise BadFileError("no mapping")
    for key in ("auto_map", "auto_mapping", "custom_pipelines", "trust_remote_code"):
        if value.get(key):
            raise BadFileError(f"asks for code of its own ({key})")
    for text in _strings(value):
        if records.is_outside(text):
            raise BadFileError("names a path outside")


def _strings(value: Any, depth: int = 0) -> list[str]:
    if depth > 50:
        raise BadFileError("too deep")
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in _strings(v, depth + 1)]
    if isinstance(value, list):
        return [t for v in value for t in _strings(v, depth + 1)]
    return []


def identity(folder: Path, name: str, hashes: Mapping[str, str]) -> str | None:
    """What `records.identify` gives for a file or folder of the bundle, None if it is absent."""
    if name in hashes:
        return hashes[name]
    if f"{name}/MANIFEST.json" in hashes:
        try:
            value = reading.read_json(folder / name / "MANIFEST.json", 16 << 20)
            return str(value["digest"])
        except (BadFileError, KeyError, TypeError):
            return "unreadable"
    return None


def check_chain(
    folder: Path,
    study: Study,
    included: layout.Included,
    hashes: Mapping[str, str],
    found_records: Mapping[str, Record],
) -> list[Finding]:
    """Every result comes from a recorded job, that from other recorded ones, all as configured."""
    found: list[Finding] = []
    made: dict[str, str] = {}
    maker: dict[str, str] = {}
    for name, record in found_records.items():
        outputs = sorted(record["outputs"])
        if name not in [layout.record_name(o) for o in outputs]:
            found.append(Finding(name, "a record of its output", ", ".join(outputs)[:120], "name"))
        for output, digest in record["outputs"].items():
            if output in maker:
                found.append(Finding(name, maker[output], name, f"two jobs made {output}"))
            made[output], maker[output] = digest, name
            here = identity(folder, output, hashes)
            if here is not None and here != digest:
                found.append(Finding(output, digest, here, "its job recorded another result"))
    for name, record in found_records.items():
        for source, digest in sorted(record["inputs"].items()):
            if source.startswith("outside/"):
                continue
            if source not in made:
                found.append(Finding(name, "a recorded job", "none", f"its input {source}"))
            elif made[source] != digest:
                why = f"its input {source} was made otherwise"
                found.append(Finding(name, made[source], digest, why))
    for job in layout.jobs(study):
        name = layout.record_name(job.outputs[0])
        record = found_records.get(name, {})
        if not record:
            found.append(Finding(name, "a job's record", "absent", "every job is recorded"))
            continue
        if record["rule"] != job.rule or record["wildcards"] != job.wildcards:
            got = f"{record['rule']} {record['wildcards']}"
            found.append(Finding(name, f"{job.rule} {job.wildcards}", got, "another job"))
        if set(record["inputs"]) != set(job.inputs) or set(record["outputs"]) != set(job.outputs):
            odd = set(record["inputs"]) ^ set(job.inputs) or set(record["outputs"]) ^ set(
                job.outputs
            )
            found.append(Finding(name, "the grid's files", sorted(odd)[0], "inputs or outputs"))
        if record["settings"] != job.settings(study):
            why = "it ran with other settings than the configuration has"
            found.append(Finding(name, job.settings(study), str(record["settings"]), why))
    found += _check_runs(folder, study, hashes, made)
    found += _check_rest(study, hashes, found_records, maker)
    return found


def _check_runs(
    folder: Path, study: Study, hashes: Mapping[str, str], made: Mapping[str, str]
) -> list[Finding]:
    """Each run's manifest tells of its own run: model, condition, seed, base model and corpus."""
    found = []
    paths = layout.Paths("results")
    corpus = made.get(paths.corpus(study.corpus.name).removeprefix("results/"))
    for run in study.runs:
        name = f"{paths.adapter(*run)}/MANIFEST.json".removeprefix("results/")
        if name not in hashes:
            continue
        try:
            facts = reading.read_json(folder / name, 16 << 20)
        except BadFileError:
            continue  # check_folders says so
        base = made.get(paths.checkpoint(run.model).removeprefix("results/"))
        expected = {**run._asdict(), "kind": "adapter", "base": base, "corpus": corpus}
        if "order" in facts:
            expected["order"] = study.conditions[run.condition].order
        if "steps" in facts:
            expected["steps"] = study.evaluation_steps
        found += [
            Finding(name, f"{key} {value}", f"{key} {facts.get(key)}", "another run's facts")
            for key, value in expected.items()
            if facts.get(key) != value
        ]
    return found


def _check_rest(
    study: Study,
    hashes: Mapping[str, str],
    found_records: Mapping[str, Record],
    maker: Mapping[str, str],
) -> list[Finding]:
    """Tables, figures and the report: recorded too, made from the scores or from one another."""
    found = []
    known = {layout.record_name(job.outputs[0]) for job in layout.jobs(study)}
    for name in sorted(hashes):
        if (layout.is_table(name) or layout.is_figure(name) or name == "report.html") and (
            name not in maker
        ):
            found.append(Finding(name, "a job's record", "absent", "every job is recorded"))
    all_scores = {
        layout.Paths("results").scores(*run).removeprefix("results/") for run in study.all_runs
    }
    for name, record in found_records.items():
        if name in known:
            continue
        rule = record["rule"]
        try:
            expected = records.settings(study, rule, record["wildcards"])
        except (KeyError, ValueError, AttributeError):
            expected = None
        if expected is None:
            found.append(Finding(name, "a rule of the workflow", str(rule)[:80], "unknown rule"))
        elif expected != record["settings"]:
            why = "it ran with other settings than the configuration has"
            found.append(Finding(name, expected, str(record["settings"]), why))
        scores = {n for n in record["inputs"] if n.startswith("scores/")}
        if scores and scores != all_scores:
            odd = sorted(scores ^ all_scores)[0]
            found.append(Finding(name, "the scores of all runs", odd, "a run missing or too many"))
    return found


def check_study(study: Study) -> list[str]:
    """What in a bundle's configuration points out of the bundle or switches protection off."""
    value = study.model_dump(mode="json")
    found = []
    if value["results"] != "results" or value["data_dir"] is not None:
        found.append("results or data_dir name a folder")
    found += [
        "a value names a path outside" for text in _strings(value) if records.is_outside(text)
    ]
    if study != records.portable(study):
        found.append("it names a server or a folder")
    return found


BUILT_IN_ANSWERS = frozenset({"number", "letter", "index", "program"})


def check_definitions(
    folder: Path, study: Study, trusted: Collection[str] = ()
) -> tuple[list[Finding], list[str]]:
    """The study's own benchmark definitions: plain data that names known functions only.

    Args:
        trusted: further `module:function` names that the reviewer allows to be called.

    Returns:
        What is wrong with them, and the functions they name that are not allowed here.
    """
    found: list[Finding] = []
    foreign: list[str] = []
    for benchmark, name in layout.definitions(study).items():
        try:
            reading.check_yaml(folder / name)
            read = definition.read(folder / name)
        except (BadFileError, UserError, OSError) as error:
            why = str(error).replace(f"{folder}/", "")
            found.append(Finding(name, "a benchmark's definition", "none", why))
            continue
        allowed = {*BUILT_IN_ANSWERS, *loaders.LOADERS, *trusted}
        foreign += [n for n in (read.answer, read.loader) if n not in allowed]
        if any(records.is_outside(t) for task in read.tasks.values() for t in task.files.values()):
            found.append(Finding(name, "files of the benchmark", benchmark, "a path outside"))
    return found, sorted(set(foreign))


def derive(study: Study, found: Mapping[str, Record]) -> dict[str, Any]:
    """What bundle.json says that follows from the configuration and the jobs' records."""
    h3a = study.hypotheses.h3a
    question = f"; H3a: {h3a.small} against {h3a.large}" if h3a else ""
    return {
        "name": f"ZPD-Bench study {study.study or study.corpus.name}",
        "description": (
            f"Models {', '.join(study.models)}; conditions {', '.join(study.conditions)}; "
            f"benchmarks {', '.join(study.benchmarks)}{question}."
        ),
        "study": study_digest(study),
        "seeds": study.seeds,
        "images": _images(found),
        "sources": {
            "corpus": {n: s.model_dump(mode="json") for n, s in study.corpus.sources.items()},
            "benchmarks": {n: b.model_dump(mode="json") for n, b in study.benchmarks.items()},
            "models": {n: m.model_dump(mode="json") for n, m in study.models.items()},
        },
    }


def _images(found: Mapping[str, Record]) -> list[dict[str, Any]]:
    """The images that jobs ran in, each by its file's name and by the digests of its build."""
    seen: dict[str, dict[str, Any]] = {}
    for record in found.values():
        name, digests = (record["machine"].get(key) for key in ("image", "image_digests"))
        if name is not None:
            image = {"name": name, "digests": digests}
            seen[files.canonical_json(image)] = image
    return [seen[key] for key in sorted(seen)]


def parse_facts(value: Any) -> dict[str, Any]:
    """bundle.json, checked for its form.

    Raises:
        BadFileError: another form.
    """
    texts = ("format", "name", "description", "date", "license", "study")
    if not isinstance(value, dict) or not all(isinstance(value.get(t), str) for t in texts):
        raise BadFileError("is not of this format")
    if value["format"] != layout.FORMAT:
        raise BadFileError(f"has another format than {layout.FORMAT}")
    code = value.get("code")
    if not isinstance(code, dict) or not isinstance(code.get("version"), str):
        raise BadFileError("code: not of this format")
    if not isinstance(code.get("package"), str) or {"commit", "diff"} - set(code):
        raise BadFileError("code: not of this format")
    for key in ("commit", "diff"):
        if code[key] is not None and not isinstance(code[key], str):
            raise BadFileError(f"code.{key}: no text")
    try:
        layout.included_of(value)
    except ValueError as error:
        raise BadFileError(str(error)) from error
    return value


def dump(value: Any) -> str:
    """JSON as bundles hold it."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def study_digest(study: Study) -> str:
    """Digest (hex) of the whole portable configuration."""
    return files.digest(study.model_dump(mode="json"))
