"""Names, manifests and small files of a stranger's bundle."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from zpdbench.artifacts import manifest, names, reading
from zpdbench.artifacts.reading import BadFileError

H = "0" * 64


@pytest.mark.parametrize(
    "name", ["a", "a/b.c", "scores/m-1.5/zpd/s0.parquet", "자료/가.txt", "a..b"]
)
def test_plain_names_are_safe(name: str) -> None:
    assert names.problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "C:/x", "c:x", "a\\b", "a\0b",
        "a\nb", "a:b", "con", "a/NUL.txt", "a.", "a ", " a", "a*", "e\u0301", "a\u202eb", "x" * 300,
        "a/" * 600 + "b", "a\ud800",
    ],
)  # fmt: skip
def test_other_names_are_refused(name: str) -> None:
    assert names.problem(name)


def test_collisions_on_some_file_system_are_found() -> None:
    assert names.collisions(["a/B.txt", "a/b.txt"]) == [("a/B.txt", "a/b.txt")]
    assert names.collisions(["a", "a"]) == [("a", "a")]
    assert names.collisions(["Data/x", "data/y"]) == [("Data", "data")]
    assert names.collisions(["a", "a/b"])
    assert names.collisions(["straße", "STRASSE"])
    assert names.collisions(["a/x", "a/y", "b/x"]) == []


def test_manifest_round_trip_and_order() -> None:
    text = manifest.text({"b": H, "a/c": "1" * 64, "C": H})
    assert text.splitlines()[0].endswith("  C")
    assert manifest.parse(text.encode()) == {"C": H, "a/c": "1" * 64, "b": H}


def test_sha256sum_agrees(tmp_path: Path) -> None:
    import shutil
    import subprocess

    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum")
    (tmp_path / "x y").write_bytes(b"1")
    from zpdbench import files

    text = manifest.text({"x y": files.sha256_file(tmp_path / "x y")})
    (tmp_path / manifest.NAME).write_text(text)
    subprocess.run(["sha256sum", "--check", manifest.NAME], cwd=tmp_path, check=True)
    made = subprocess.run(["sha256sum", "x y"], cwd=tmp_path, capture_output=True, check=True)
    assert manifest.parse(made.stdout) == manifest.parse(text.encode())


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "is empty"), (b"\xff", "UTF-8"), (b"xyz  a\n", "line 1"),
        (f"{H} a\n".encode(), "line 1"),
        (f"{H}  ../a\n".encode(), "climbs"), (f"{H}  a\n{H}  a\n".encode(), "twice"),
        (f"{H}  a\n{H}  A\n".encode(), "one file"), (f"{H}  {manifest.NAME}\n".encode(), "itself"),
        (f"{H[:-1]}G  a\n".encode(), "line 1"), (f"{H}  a\n\n".encode(), "line 2"),
    ],
)  # fmt: skip
def test_bad_manifests_name_the_line(data: bytes, part: str) -> None:
    with pytest.raises(manifest.ManifestError, match=part):
        manifest.parse(data)


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 100_000, "{",
     "\xff", '{"a": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_json_is_plain_and_bounded(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadFileError):
        reading.read_json(path)


def test_huge_json_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as handle:
        handle.truncate(10 << 30)
    with pytest.raises(BadFileError, match="larger"):
        reading.read_json(path)


def test_yaml_that_multiplies_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    path.write_text("\n".join(lines))
    with pytest.raises(BadFileError, match="aliases"):
        reading.check_yaml(path)
    path.write_text("a: !!python/object/apply:os.system [true]")
    with pytest.raises(BadFileError, match="tags"):
        reading.check_yaml(path)
    path.write_text("a: [1, b]\n")
    reading.check_yaml(path)


def _tensors(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


GOOD = {"w": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}


def test_safetensors_of_its_own_size_only(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_tensors(GOOD, b"12345678"))
    assert reading.check_safetensors(path) == {"w": ("F32", [2, 1])}
    gap = {**GOOD, "v": {"dtype": "U8", "shape": [1], "data_offsets": [9, 10]}}
    import pickle

    for bad in (
        b"",
        pickle.dumps({"w": [1.0]}),
        _tensors(GOOD, b"1234567"),
        _tensors(GOOD, b"123456789"),
        _tensors(gap, b"1234567890"),
        _tensors({"w": {**GOOD["w"], "dtype": "F64"}}, b"12345678"),
        _tensors({"w": {**GOOD["w"], "shape": [-2, -1]}}, b"12345678"),
        _tensors([1], b""),
        struct.pack("<Q", 1 << 60) + b"{}",
    ):
        path.write_bytes(bad)
        with pytest.raises(BadFileError):
            reading.check_safetensors(path)
