"""Bundles that mean harm: refused or harmless, and said so in one row."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import polars as pl
import pytest

from tests.artifacts import tampering
from zpdbench import cli, study
from zpdbench.artifacts import archive, layout, manifest


def verify(bundle: Path, out: Path, *extra: str) -> tuple[int, str]:
    """Exit code and table of `zpdbench verify` at level 0."""
    code = cli.main(["verify", str(bundle), "--level", "0", "--out", str(out), *extra])
    return code, out.read_text("utf-8")


def differing(text: str) -> list[str]:
    return [line for line in text.splitlines() if "\tdiffers\t" in line]


def with_entry(bundle: Path, target: Path, *entries: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """A copy of the bundle with further entries in the zip."""
    shutil.copyfile(bundle, target)
    with zipfile.ZipFile(target, "a") as handle:
        for info, data in entries:
            handle.writestr(info, data)
    return target


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.txt",
        "/etc/cron.d/evil",
        "a/../../evil",
        "C:/evil",
        "a\\..\\evil",
        "con",
        "x\x01y",
    ],
)
def test_names_that_lead_out(bundle: Path, tmp_path: Path, name: str) -> None:
    bad = with_entry(bundle, tmp_path / "x.zip", (zipfile.ZipInfo(name), b"x"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code, text = verify(bad, tmp_path / "v.tsv", "--scratch", str(scratch))
    assert code == 1 and "refused" in text
    assert not list(tmp_path.rglob("evil*")) and not list(scratch.iterdir())


def test_links_devices_encryption_and_odd_methods(bundle: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    fifo = zipfile.ZipInfo("pipe")
    fifo.create_system, fifo.external_attr = 3, 0o010644 << 16
    packed = zipfile.ZipInfo("packed")
    packed.compress_type = zipfile.ZIP_LZMA
    for entry, word in ((link, "symbolic link"), (fifo, "neither file"), (packed, "method")):
        bad = with_entry(bundle, tmp_path / "x.zip", (entry, b"/etc/passwd"))
        code, text = verify(bad, tmp_path / "v.tsv")
        assert code == 1 and word in text


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twice_or_differing_in_case_only(bundle: Path, tmp_path: Path) -> None:
    for name, word in (("h3a.tsv", "is there twice"), ("H3A.tsv", "in case")):
        bad = with_entry(bundle, tmp_path / "x.zip", (zipfile.ZipInfo(name), b"x"))
        code, text = verify(bad, tmp_path / "v.tsv")
        assert code == 1 and word in text


def test_bomb_by_ratio(bundle: Path, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("zeros.tsv")
    info.compress_type = zipfile.ZIP_DEFLATED
    bad = with_entry(bundle, tmp_path / "x.zip", (info, bytes(64 << 20)))
    code, text = verify(bad, tmp_path / "v.tsv")
    assert code == 1 and "bomb" in text


def test_bomb_by_many_entries_that_each_stay_below(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as handle:
        for number in range(30):
            handle.writestr(f"{number}.tsv", bytes(10 << 20))
    scratch = tmp_path / "s"
    scratch.mkdir()
    found = archive.open_bundle(tmp_path / "x.zip", scratch)
    assert any("zip bomb? 314572800 bytes" in reason for _, reason in found.refusals)
    assert not list(scratch.iterdir())


def test_no_terminal_obeys_a_bundle(
    folder: Path, unpacked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escapes in a table, an answer or a configuration are shown as blanks."""
    escape = "\x1b]0;owned\x07\x1b[2J"
    table = folder / "h3a.tsv"
    table.write_text(table.read_text("utf-8").replace("\tpp\t", f"\tpp{escape}\t"), "utf-8")
    for name in ("gsm8k/pp", f"gsm8k/pp{escape}"):
        cli.main(["why", str(table), "--row", name])
    path = folder / "generations/small/all.parquet"
    frame = pl.read_parquet(path).with_columns(pl.lit(escape).alias("text"))
    frame.write_parquet(path)
    cli.main(["why", str(folder / "anova.tsv"), "--row", "small", "--items", "1"])
    cli.main(["why", str(unpacked / "h3a.tsv"), "--row", f"x{escape}"])
    cli.main(["diff", str(folder), str(unpacked)])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and "\x07" not in said.out + said.err


def test_a_verb_has_no_more_memory_than_the_machine(folder: Path, tmp_path: Path) -> None:
    """Nor any number of hours: a stranger's file may ask for everything."""
    import resource

    from zpdbench.artifacts import workshop

    process = workshop.subprocess.Popen(["sleep", "30"])
    try:
        workshop._limit_memory(process)
        soft, _ = resource.prlimit(process.pid, resource.RLIMIT_AS)
        assert 0 < soft < 1 << 45
    finally:
        process.kill()
        process.wait()
    made = workshop.Workshop(tmp_path / "w", study.load(folder / layout.STUDY))
    workshop.SECONDS, before = 0.01, workshop.SECONDS
    try:
        assert made.run("doctor", []).code == workshop.NO_TIME
    finally:
        workshop.SECONDS = before


def test_bomb_by_overlap(tmp_path: Path) -> None:
    """Two central entries that share one local entry's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as handle:
        handle.writestr("aaaa", b"x" * 1000)
        handle.writestr("bbbb", b"x" * 1000)
    data = buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(data)) as handle:
        start = handle.start_dir
    second = data.index(b"PK\x01\x02", start + 4)
    offset = second + 42
    # The second entry now claims to begin inside the first one's data.
    overlapped = data[:offset] + struct.pack("<L", 10) + data[offset + 4 :]
    (tmp_path / "x.zip").write_bytes(overlapped)
    scratch = tmp_path / "s"
    scratch.mkdir()
    found = archive.open_bundle(tmp_path / "x.zip", scratch)
    assert any("shares its bytes" in reason for _, reason in found.refusals)
    assert not list(scratch.iterdir())


def test_bomb_by_total_and_by_count(bundle: Path, tmp_path: Path) -> None:
    for limits in (archive.Limits(total_bytes=1000), archive.Limits(entries=3)):
        scratch = tmp_path / f"s{limits.entries}"
        scratch.mkdir()
        assert archive.open_bundle(bundle, scratch, limits).refusals
        assert not list(scratch.iterdir())


def test_size_that_lies(bundle: Path, tmp_path: Path) -> None:
    """An entry that unpacks to more than its header says stops at what it said, and is refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as handle:
        handle.writestr("a.tsv", b"x" * 5000)
    data = buffer.getvalue().replace(struct.pack("<L", 5000), struct.pack("<L", 50))
    (tmp_path / "x.zip").write_bytes(data)
    scratch = tmp_path / "s"
    scratch.mkdir()
    assert archive.open_bundle(tmp_path / "x.zip", scratch).refusals


@pytest.mark.parametrize("cut", [10, 1000, -10, -30000])
def test_damaged_zip(bundle: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "x.zip").write_bytes(bundle.read_bytes()[:cut])
    code, text = verify(tmp_path / "x.zip", tmp_path / "v.tsv")
    assert code == 1 and "no sound zip" in text


def test_no_bundle_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path / "none.zip"), "--out", str(tmp_path / "v")]) == 2
    assert "no such bundle" in capsys.readouterr().err


@pytest.fixture
def folder(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of the unpacked bundle, to be tampered with."""
    target = tmp_path / "bundle"
    shutil.copytree(unpacked, target)
    return target


def test_folder_with_links(folder: Path, tmp_path: Path) -> None:
    (folder / "h3a.tsv").unlink()
    (folder / "h3a.tsv").symlink_to("/etc/passwd")
    (folder / "items2").symlink_to(folder / "items")
    os.mkfifo(folder / "pipe")
    code, text = verify(folder, tmp_path / "v.tsv")
    assert code == 1
    assert text.count("symbolic link") == 2 and "neither file nor folder" in text


@pytest.mark.parametrize(
    "name",
    ["adapters/small/zpd/s0/step4/adapter_model.bin", "adapters/small/zpd/s0/training_args.bin",
     "checkpoints/small/pytorch_model.bin", "checkpoints/small/modeling_small.py"],
)  # fmt: skip
def test_pickle_or_code_among_the_weights(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps({"x": 1}))
    tampering.rehash(folder)
    code, text = verify(folder, tmp_path / "v.tsv")
    assert code == 1 and any(name in line for line in differing(text))


def test_pickle_under_the_name_of_safetensors(folder: Path, tmp_path: Path) -> None:
    path = folder / "adapters/small/zpd/s0/step4/adapter_model.safetensors"
    path.write_bytes(pickle.dumps({"x": 1}))
    tampering.forge(folder)
    code, text = verify(folder, tmp_path / "v.tsv")
    assert code == 1 and any("no safetensors" in line for line in differing(text))


def test_checkpoint_that_brings_code(folder: Path, tmp_path: Path) -> None:
    path = folder / "adapters/small/zpd/s0/step4/adapter_config.json"
    value = json.loads(path.read_text("utf-8"))
    for change in ({"auto_mapping": {"x": "y"}}, {"base_model_name_or_path": "/etc"}):
        path.write_text(json.dumps(value | change))
        tampering.forge(folder)
        code, text = verify(folder, tmp_path / "v.tsv")
        assert code == 1 and any("adapter_config.json" in line for line in differing(text))


@pytest.mark.parametrize(
    "change",
    [
        {"results": "/tmp/elsewhere"},
        {"results": "../elsewhere"},
        {"data_dir": "/etc"},
        {"models": {"small": {"source": "local", "path": "/etc"}}},
        {"models": {"small": {"source": "local", "path": "../../etc"}}},
        {
            "generations": {
                "engine": "openai",
                "base_url": {m: f"http://{m}.evil.example/v1" for m in ("small", "large")},
            }
        },
    ],
)
def test_configuration_that_points_outside(folder: Path, tmp_path: Path, change: dict) -> None:
    path = folder / layout.STUDY
    value = study.load(path).model_dump(mode="json")
    for key, part in change.items():
        value[key] = {**value[key], **part} if isinstance(part, dict) else part
    path.write_text(study.lock_text(study.parse(value)), "utf-8")
    tampering.rehash(folder)
    code, text = verify(folder, tmp_path / "v.tsv")
    assert code == 1 and any("stays inside" in line for line in differing(text))


def test_html_in_fields_stays_text(folder: Path, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    facts = json.loads((folder / layout.FACTS).read_text("utf-8"))
    facts["name"] = facts["description"] = f"{name}<script>alert(2)</script>"
    (folder / layout.FACTS).write_text(json.dumps(facts))
    record = folder / "records/scores/small/zpd/s0.parquet.json"
    value = json.loads(record.read_text("utf-8"))
    value["machine"]["cpu"] = "<script>alert(3)</script>"
    record.write_text(json.dumps(value))
    tampering.rehash(folder)
    verify(folder, tmp_path / "v.tsv")
    page = (tmp_path / "v.html").read_text("utf-8")
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page


def test_control_characters_do_not_reach_the_table(folder: Path, tmp_path: Path) -> None:
    record = folder / "records/scores/small/zpd/s0.parquet.json"
    value = json.loads(record.read_text("utf-8"))
    value["settings"] = "x\x1b[2J\ty\n=cmd"
    record.write_text(json.dumps(value))
    tampering.rehash(folder)
    code, text = verify(folder, tmp_path / "v.tsv")
    assert code == 1 and "\x1b" not in text
    assert all(line.count("\t") == 6 for line in text.splitlines())


@pytest.mark.parametrize("text", ['{"a": NaN}', "[" * 200_000, "null", "[]", '{"format": 1}', ""])
@pytest.mark.parametrize("name", [layout.FACTS, "records/scores/small/zpd/s0.parquet.json"])
def test_odd_json(folder: Path, tmp_path: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    tampering.rehash(folder)
    code, table = verify(folder, tmp_path / "v.tsv")
    assert code == 1 and any(name in line for line in differing(table))


def test_parquet_of_another_form(folder: Path, tmp_path: Path) -> None:
    """Columns, types and row counts are looked at before any value; damage is a row, no crash."""
    path = folder / "scores/small/zpd/s0.parquet"
    good = pl.read_parquet(path)
    data = path.read_bytes()
    odd: list[bytes] = [
        data[:-50],
        data[:100] + bytes(200) + data[300:],
        b"PAR1" + bytes(20) + b"PAR1",
    ]
    for frame in (
        good.drop("correct"),
        good.with_columns(pl.col("seed").cast(pl.String)),
        good.with_columns(pl.lit(float("nan")).alias("correct")),
        good.with_columns(pl.lit(2.0).alias("correct")),
        good.with_columns(pl.lit(None, pl.Float64).alias("correct")),
        good.clear(),
    ):
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        odd.append(buffer.getvalue())
    for content in odd:
        path.write_bytes(content)
        tampering.forge(folder)
        command = ["verify", str(folder), "--level", "1", "--out", str(tmp_path / "v.tsv")]
        assert cli.main(command) == 1
        lines = differing((tmp_path / "v.tsv").read_text("utf-8"))
        assert any("scores/small/zpd/s0.parquet" in line for line in lines)


def test_code_in_answers_runs_only_in_the_sandbox(folder: Path, tmp_path: Path) -> None:
    """Level 2 runs what a model wrote: here a program that would leave a mark and read secrets."""
    mark = tmp_path / "mark"
    path = folder / "generations/small/all.parquet"
    frame = pl.read_parquet(path)
    code = (
        "    import os, urllib.request\n"
        f"    for p in ({str(mark)!r}, '/tmp/zpdbench-mark'):\n"
        "        try: open(p, 'w').write('x')\n"
        "        except OSError: pass\n"
        f"    os.system('touch {mark}')\n    return None\n"
    )
    program = pl.when(pl.col("benchmark") == "humaneval").then(pl.lit(code)).otherwise("text")
    frame.with_columns(program.alias("text")).write_parquet(path, compression="zstd")
    tampering.forge(folder)
    command = ["verify", str(folder), "--level", "2", "--out", str(tmp_path / "v.tsv")]
    assert cli.main(command) == 1
    assert not mark.exists() and not Path("/tmp/zpdbench-mark").exists()
    text = (tmp_path / "v.tsv").read_text("utf-8")
    assert any("humaneval" in line and line.startswith("2") for line in differing(text))


def test_a_bundle_cannot_switch_the_sandbox_off(folder: Path) -> None:
    from zpdbench.artifacts.workshop import harmless

    value = study.load(folder / layout.STUDY).model_dump(mode="json")
    value["sandbox"] = {"waive": ["namespaces", "seccomp"], "seconds": 1e6}
    assert harmless(study.parse(value)).sandbox == study.Sandbox()


def test_the_manifest_is_needed(folder: Path, tmp_path: Path) -> None:
    (folder / manifest.NAME).unlink()
    code, text = verify(folder, tmp_path / "v.tsv")
    assert code == 1 and "it has a manifest" in text
