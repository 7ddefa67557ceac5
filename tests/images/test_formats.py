"""SIF, OCI and the bill of materials: valid, complete, and the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path

import pytest

from zpdbench.errors import UserError
from zpdbench.images import oci, sbom, sif
from zpdbench.images.names import DebianPackage
from zpdbench.images.wheels import PythonPackage

EPOCH = 1_700_000_000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    squashfs = tmp_path / "root.sqfs"
    squashfs.write_bytes(b"hsqs" + bytes(range(256)) * 40)
    path = tmp_path / "image.sif"
    sif.write_sif(squashfs, path)
    return path


def test_a_sif_holds_its_file_system_where_it_says(image: Path, tmp_path: Path) -> None:
    sif.check_sif(image)
    data = image.read_bytes()
    assert data[32:41] == b"SIF_MAGIC"
    kind, used = struct.unpack_from("<i?", data, 4096)
    offset, size = struct.unpack_from("<qq", data, 4096 + 17)
    assert (kind, used) == (0x4004, True)
    assert data[offset : offset + size] == (tmp_path / "root.sqfs").read_bytes()


def test_a_sif_has_the_same_bytes_every_time(image: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.sif"
    sif.write_sif(tmp_path / "root.sqfs", again)
    assert again.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("keep", [0, 100, 5000, 40_000])
def test_a_truncated_sif_is_told(image: Path, keep: int) -> None:
    image.write_bytes(image.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"truncated|no SIF") as raised:
        sif.check_sif(image)
    assert sif.BUILD in raised.value.fix


def test_another_file_is_no_sif(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(b"PK" * 4000)
    with pytest.raises(UserError, match="no SIF"):
        sif.check_sif(path)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("./etc/hostname")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"box\n"))
    return path


def write(rootfs: Path, out: Path) -> str:
    return oci.write_oci(
        rootfs, out, name="zpdbench/score", tag="0123", labels={"b": "2", "a": "1"}, epoch=EPOCH
    )


def test_every_blob_of_an_oci_image_has_its_digest(rootfs: Path, tmp_path: Path) -> None:
    digest = write(rootfs, tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    blobs = {n.split("/")[-1]: data for n, data in content.items() if n.startswith("blobs/")}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())
    index = json.loads(content["index.json"])
    assert index["manifests"][0]["digest"] == digest
    manifest = json.loads(blobs[digest.removeprefix("sha256:")])
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    layer = blobs[manifest["layers"][0]["digest"].removeprefix("sha256:")]
    assert len(layer) == manifest["layers"][0]["size"]
    assert gzip.decompress(layer) == rootfs.read_bytes()
    diff = f"sha256:{hashlib.sha256(rootfs.read_bytes()).hexdigest()}"
    assert config["rootfs"]["diff_ids"] == [diff]
    assert config["config"]["Labels"] == {"a": "1", "b": "2"}
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert json.loads(content["manifest.json"])[0]["RepoTags"] == ["zpdbench/score:0123"]


def test_an_oci_image_has_the_same_bytes_every_time(rootfs: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    assert write(rootfs, first) == write(rootfs, second)
    assert first.read_bytes() == second.read_bytes()


def test_the_bill_of_materials_names_every_package() -> None:
    debian = [DebianPackage("libc6", "2.36-9+deb12u1", "amd64", "a" * 64, ("score",))]
    python = [PythonPackage("numpy", "2.3.5", "BSD-3-Clause", "b" * 64, 7)]
    text = sbom.bill_of_materials("score-0123", debian, python)
    assert text == sbom.bill_of_materials("score-0123", debian, python)
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert [c["purl"] for c in document["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=bookworm",
        "pkg:pypi/numpy@2.3.5",
    ]
    assert document["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert document["serialNumber"].startswith("urn:uuid:")
