"""Bundles: the same bytes every time, complete, with nothing of this machine in them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPResponse

from zpdbench import cli, files, records, study
from zpdbench.artifacts import layout, level1, manifest, secrets


@pytest.fixture
def results(synthetic_study: Path, tmp_path: Path) -> Path:
    """A copy of the results folder, to be changed; its study.lock.yaml."""
    target = tmp_path / "results"
    shutil.copytree(synthetic_study.parent, target)
    return target / synthetic_study.name


def make(lock: Path, out: Path, root: Path, *extra: str) -> int:
    command = ["make-crate", "--study", str(lock), "--workflow", str(root), "--out", str(out)]
    return cli.main([*command, *extra])


def test_same_bytes_from_one_run(results: Path, bundle: Path, root: Path, tmp_path: Path) -> None:
    """Made again from a copy elsewhere, by another process with another environment."""
    command = [sys.executable, "-m", "zpdbench.cli", "make-crate", "--study", str(results)]
    command += ["--workflow", str(root), "--out", str(tmp_path / "again.zip")]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Seoul", "LC_ALL": "C"}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_the_manifest_lists_every_other_file(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        listed = manifest.parse(archive.read(manifest.NAME))
        assert sorted(listed) == sorted(set(names) - {manifest.NAME})
        assert names == sorted(names, key=str.encode)
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert not [n for n in names if ".timing." in n or ".snakemake" in n or "/logs/" in n]


def test_metadata_is_linked_data_over_every_file(unpacked: Path) -> None:
    value = json.loads((unpacked / layout.CRATE).read_text("utf-8"))
    graph = {entity["@id"]: entity for entity in value["@graph"]}
    assert len(graph) == len(value["@graph"])
    hashes = manifest.parse((unpacked / manifest.NAME).read_bytes())
    for name, digest in hashes.items():
        if name != layout.CRATE:
            assert graph[name]["sha256"] == digest
    root = graph["./"]
    assert graph[root["mainEntity"]["@id"]]["@type"][-1] == "ComputationalWorkflow"
    actions = [e for e in value["@graph"] if e["@type"] == "CreateAction"]
    assert len(actions) == 1 + len(list((unpacked / "records").rglob("*.json")))

    def references(part: object) -> list[str]:
        if isinstance(part, dict):
            own = [part["@id"]] if set(part) == {"@id"} else []
            return own + [r for v in part.values() for r in references(v)]
        return [r for v in part for r in references(v)] if isinstance(part, list) else []

    for entity in value["@graph"]:
        for name in references({k: v for k, v in entity.items() if k != "@id"}):
            assert name in graph or name.startswith("https://"), name


def test_the_library_of_ro_crates_reads_it(unpacked: Path) -> None:
    from rocrate.rocrate import ROCrate

    read = ROCrate(str(unpacked))
    listed = manifest.parse((unpacked / manifest.NAME).read_bytes())
    assert read.root_dataset.id == "./"
    assert read.mainEntity.id == "workflow/Snakefile"
    assert "ComputationalWorkflow" in read.mainEntity.type
    parts = {part.id for part in read.root_dataset["hasPart"]}
    assert parts >= set(listed) - {layout.CRATE}
    runs = [e for e in read.root_dataset["mentions"] if e.type == "CreateAction"]
    assert len(runs) == 1 + len(list((unpacked / "records").rglob("*.json")))


@pytest.mark.slow
@pytest.mark.parametrize("lacking", [None, "mainEntity"])
def test_the_public_validator_has_nothing_to_say(
    unpacked: Path, tmp_path: Path, lacking: str | None
) -> None:
    """Every requirement of Workflow Run Crate 0.5 and of the profiles below it; without network."""
    import rocrate
    from requests_cache import CachedSession
    from rocrate_validator import services
    from rocrate_validator.models import Severity, ValidationSettings

    # The one document that it would fetch, as the library of RO-Crates brings it along.
    context = Path(rocrate.__file__).parent / "data/ro-crate.jsonld"
    store = tmp_path / "http"
    _remember(CachedSession(str(store), backend="sqlite"), context.read_bytes())
    folder = tmp_path / "bundle"
    shutil.copytree(unpacked, folder)
    if lacking:
        value = json.loads((folder / layout.CRATE).read_text("utf-8"))
        (root,) = (e for e in value["@graph"] if e["@id"] == "./")
        del root[lacking]
        (folder / layout.CRATE).write_text(json.dumps(value), "utf-8")
    settings = ValidationSettings(
        rocrate_uri=str(folder),
        profile_identifier="workflow-run-crate",
        requirement_severity=Severity.REQUIRED,
        offline=True,
        cache_path=store,
    )
    result = services.validate(settings)
    issues = {f"{i.check.identifier}: {i.message}" for i in result.get_issues()}
    assert len(result.executed_checks) > 50
    assert result.passed() == (not issues) == (lacking is None), issues


def _remember(session: Any, text: bytes) -> None:
    """Put the context of RO-Crate 1.1 where the validator keeps what it fetched."""
    address = "https://w3id.org/ro/crate/1.1/context"
    headers = {"Content-Type": "application/ld+json"}
    answer = requests.Response()
    answer.request = requests.Request("GET", address).prepare()
    answer.status_code, answer.url, answer.headers = 200, address, CaseInsensitiveDict(headers)
    answer.raw = HTTPResponse(
        io.BytesIO(text), headers, 200, request_url=address, preload_content=False
    )
    with session:
        session.cache.save_response(answer)


def test_every_statistic_of_the_workflow_can_be_computed_again(root: Path) -> None:
    """A table that a rule makes and level 1 does not know would be refused as foreign."""
    verbs = {replay.verb.replace("-", "_") for replay in level1.REPLAYS}
    assert {"aggregate_scores", "h3a", "draw_figures", "h3a_sensitivity", *study.TABLES} <= verbs
    assert verbs <= {v.replace("-", "_") for v in cli.VERBS}


def test_a_result_that_its_job_did_not_make(
    results: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = results.parent / "h3a.tsv"
    table.write_text(table.read_text("utf-8").replace("inconclusive", "supported"), "utf-8")
    assert make(results, tmp_path / "x.zip", root) == 2
    assert "h3a.tsv" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()


def test_a_study_that_is_not_complete(
    results: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results.parent / "scores/small/zpd/s1.parquet").unlink()
    assert make(results, tmp_path / "x.zip", root) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_smaller_bundles(results: Path, root: Path, tmp_path: Path, bundle: Path) -> None:
    sizes = [bundle.stat().st_size]
    for extra in (["--sample", "2"], ["--without", "adapters"], ["--without", *layout.PARTS]):
        out = tmp_path / "x.zip"
        assert make(results, out, root, *extra) == 0
        sizes.append(out.stat().st_size)
        level = "0" if "generations" in extra else "1"
        table = tmp_path / "v.tsv"
        assert cli.main(["verify", str(out), "--level", level, "--out", str(table)]) == 0
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    # What was left out cannot be checked, and that is an outcome of its own.
    assert cli.main(["verify", str(out), "--level", "2", "--out", str(tmp_path / "v.tsv")]) == 3


SECRETS = {
    "MY_SERVICE_TOKEN": "s3cr3t-value-of-a-service",
    "AWS_SECRET_ACCESS_KEY": "abcd1234efgh5678",
    "SOME_LONG_SETTING": "a-value-that-is-long-enough",
}


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("trace", SECRETS["MY_SERVICE_TOKEN"]),
        ("config", SECRETS["AWS_SECRET_ACCESS_KEY"]),
        ("config", SECRETS["SOME_LONG_SETTING"]),
        ("config", "hf_abcdefghijklmnopqrstuvwxyz0123"),
        ("config", "https://user:hunter2hunter2@example.org/x"),
        ("config", "/scratch/someone/models"),
        ("config", "HOME"),
        ("table", "HOME"),
    ],
)
def test_planted_secrets_keep_a_bundle_from_being_written(
    results: Path,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    what: str,
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/hermione")
    text = what.replace("HOME", "/home/hermione/zpd")
    folder = results.parent / "adapters/small/zpd/s0"
    if where == "trace":
        frame = pl.read_parquet(folder / "trace.parquet")
        frame.with_columns(facts=pl.lit(text)).write_parquet(
            folder / "trace.parquet", compression="zstd"
        )
    elif where == "config":
        path = folder / "step4/adapter_config.json"
        path.write_text(json.dumps({"peft_type": "LORA", "note": text}))
    facts = {k: v for k, v in files.read_manifest(folder).items() if k not in ("files", "digest")}
    if where != "table":
        _record_again(results, folder, facts)
    else:
        table = results.parent / "power.tsv"
        table.write_text(table.read_text("utf-8").replace("\n", f"\t{text}\n", 1), "utf-8")
        # As if it had been so from the beginning: for the job that made it and those that read it.
        for path in (results.parent / "records").rglob("*.json"):
            record = json.loads(path.read_text("utf-8"))
            for side in ("inputs", "outputs"):
                if "power.tsv" in record[side]:
                    record[side]["power.tsv"] = files.sha256_file(table)
            path.write_text(json.dumps(record))
    assert make(results, tmp_path / "x.zip", root, "--without", "generations") == 2
    error = capsys.readouterr().err
    # A path in a configuration is refused before that: a loader might follow it.
    assert "must not be published" in error or "names a path outside" in error
    assert text not in error
    assert not (tmp_path / "x.zip").exists()


def test_the_name_of_the_image_around_it_is_no_secret(
    results: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle says which images jobs ran in; inside one, Apptainer gives that name too."""
    name = "stats-0123456789abcdef.sif"
    for path in (results.parent / "records").rglob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        record["machine"]["image"] = name
        path.write_text(json.dumps(record))
    monkeypatch.setenv("APPTAINER_NAME", name)
    assert make(results, tmp_path / "x.zip", root) == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert name in archive.read("bundle.json").decode()


def test_what_every_image_has_is_no_secret(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside one the environment holds what the code that goes into a bundle names."""
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    inside = {"TMPDIR": "/mnt/zpdbench-tmp", "PATH": system, "_": "/usr/local/bin/zpdbench"}
    for name, value in inside.items():
        monkeypatch.setenv(name, value)
    unwanted = secrets.needles([Path("/opt/zpdbench/zpdbench")])
    code = [root / "containers/zpdbench", root / "containers/rootfs.sh"]
    for path in [*code, *sorted((root / "src/zpdbench/images").glob("*.py"))]:
        name = f"workflow/{path.relative_to(root)}"
        assert secrets.scan(name, path, unwanted) == []
    monkeypatch.setenv("PATH", f"{system}:/cluster/physics/bin")
    assert f"{system}:/cluster/physics/bin".encode() in secrets.needles()


def test_a_token_in_the_workflow_s_own_code(
    results: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Snakefile", "rules/report.smk"):
        workflow = tmp_path / name.replace("/", "-")
        shutil.copytree(root / "rules", workflow / "rules")
        shutil.copyfile(root / "Snakefile", workflow / "Snakefile")
        with (workflow / name).open("a") as handle:
            handle.write('token = "hf_abcdefghijklmnopqrstuvwxyz0123"\n')
        assert make(results, tmp_path / "x.zip", workflow) == 2
        assert "an access token" in capsys.readouterr().err


def _record_again(lock: Path, folder: Path, facts: dict[str, object]) -> None:
    """Make the chain of records fit a changed adapter, as if it had been trained so."""
    files.write_manifest(folder, facts)
    name = folder.relative_to(lock.parent).as_posix()
    digest = records.identify(folder)
    for path in (lock.parent / "records").rglob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        for part in ("inputs", "outputs"):
            if name in record[part]:
                record[part][name] = digest
        path.write_text(json.dumps(record))


def test_nothing_of_this_machine_is_inside(bundle: Path, root: Path) -> None:
    unwanted = {str(root), str(Path.home()) + "/", str(bundle.parent), os.uname().nodename}
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            for text in unwanted:
                if len(text) > 5:
                    assert text.encode() not in data, (name, text)
            if name.endswith(".parquet"):
                frame = pl.read_parquet(io.BytesIO(data))
                for column in frame.select(pl.col(pl.String)).iter_columns():
                    assert not column.str.contains(str(root), literal=True).any()


def test_a_private_configuration_becomes_portable() -> None:
    from tests.artifacts.synthetic import CONFIG

    value = {
        **CONFIG,
        "results": "/home/someone/results",
        "data_dir": "/home/someone/data",
        "models": {
            "small": {"source": "local", "path": "/home/someone/models/small"},
            "large": CONFIG["models"]["large"],
        },
        "generations": {
            "engine": "openai",
            "base_url": {m: f"http://user:pass@10.0.0.1/{m}/v1" for m in ("small", "large")},
        },
    }
    text = study.lock_text(records.portable(study.parse(value)))
    assert "someone" not in text and "10.0.0.1" not in text and "path: small" in text


def test_secrets_are_searched_for_inside_compressed_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pl.DataFrame({"a": ["x" * 50] * 1000, "b": [["y", "the-secret"]] * 1000}).write_parquet(
        path, compression="zstd"
    )
    assert secrets.scan("x.parquet", path, {b"the-secret": "a secret"}) == ["a secret"]
    assert secrets.scan("x.parquet", path, {b"another": "a secret"}) == []
