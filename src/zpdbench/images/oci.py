"""An image of one layer for Docker and Podman: an OCI layout in a tar, the same bytes every time.

Follows the OCI image specification 1.0 and adds the `manifest.json` that `docker load` of before
Docker 25 reads.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class _Hashing(io.RawIOBase):
    """Writes through to a file and hashes what passes."""

    def __init__(self, target: BinaryIO) -> None:
        self._target, self.size, self._hash = target, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._target.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def write_oci(
    rootfs: Path, out: Path, *, name: str, tag: str, labels: Mapping[str, str], epoch: int
) -> str:
    """Write root file system `rootfs` (a tar) as an image archive.

    Args:
        name: the repository, such as `zpdbench/score`.
        epoch: the time stamp (seconds) in it.

    Returns:
        The manifest's digest, `sha256:...`: what a registry shows, and `docker pull NAME@` takes.
    """
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    layer_file = out.with_name(out.name + ".layer")
    try:
        diff = hashlib.sha256()
        with layer_file.open("wb") as raw, rootfs.open("rb") as source:
            hashing = _Hashing(raw)
            with gzip.GzipFile("", "wb", 6, hashing, mtime=0) as packed:
                while block := source.read(1 << 20):
                    diff.update(block)
                    packed.write(block)
        layer = _descriptor(_LAYER, hashing.digest, hashing.size)
        config = _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": created,
                "config": {
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                    "Cmd": ["/bin/bash"],
                    "WorkingDir": "/",
                    "Labels": dict(sorted(labels.items())),
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff.hexdigest()}"]},
                "history": [{"created": created, "created_by": "zpdbench build-image"}],
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _described(_CONFIG, config),
                "layers": [layer],
            }
        )
        described = _described(_MANIFEST, manifest)
        described["annotations"] = {"org.opencontainers.image.ref.name": f"{name}:{tag}"}
        index = _json({"schemaVersion": 2, "manifests": [described]})
        docker = _json(
            [
                {
                    "Config": _blob(_described(_CONFIG, config)["digest"]),
                    "RepoTags": [f"{name}:{tag}"],
                    "Layers": [_blob(layer["digest"])],
                }
            ]
        )
        with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', epoch)
            _add(archive, "index.json", index, epoch)
            _add(archive, "manifest.json", docker, epoch)
            for blob in (config, manifest):
                _add(archive, _blob(f"sha256:{hashlib.sha256(blob).hexdigest()}"), blob, epoch)
            member = _member(_blob(layer["digest"]), layer["size"], epoch)
            with layer_file.open("rb") as handle:
                archive.addfile(member, handle)
    finally:
        layer_file.unlink(missing_ok=True)
    return str(described["digest"])


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return _descriptor(kind, f"sha256:{hashlib.sha256(blob).hexdigest()}", len(blob))


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _member(name: str, size: int, epoch: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, epoch, 0o644
    return member


def _add(archive: tarfile.TarFile, name: str, data: bytes, epoch: int) -> None:
    archive.addfile(_member(name, len(data), epoch), io.BytesIO(data))
