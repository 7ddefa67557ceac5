"""A SIF file around a squashfs: the same bytes for the same file system.

`apptainer build` puts a random id and the time into its header; this writer puts none. The layout
is that of the SIF format's version 01 (a header of 128 bytes, 48 descriptors of 585 bytes from
offset 4096, data from 32768), which Apptainer and SingularityCE read.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from zpdbench.errors import UserError

_LAUNCH = b"#!/usr/bin/env run-singularity\n"
_MAGIC = b"SIF_MAGIC"
_HEADER = struct.Struct("<32s10s3s3s16sqqqqqqqq")
_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
_DESCRIPTORS, _TABLE, DATA = 48, 4096, 32768
_PARTITION, _SQUASHFS, _PRIMARY_SYSTEM = 0x4004, 1, 2
_GROUP = 0xF0000001
_AMD64 = b"02"


def write_sif(squashfs: Path, out: Path) -> None:
    """Wrap a squashfs file system (amd64) as the primary partition of a SIF file."""
    size = squashfs.stat().st_size
    table_size = _DESCRIPTORS * _DESCRIPTOR.size
    header = _HEADER.pack(
        _LAUNCH, _MAGIC, b"01", _AMD64, bytes(16), 0, 0,
        _DESCRIPTORS - 1, _DESCRIPTORS, _TABLE, table_size, DATA, size,
    )  # fmt: skip
    extra = struct.pack("<ii3s", _SQUASHFS, _PRIMARY_SYSTEM, _AMD64)
    descriptor = _DESCRIPTOR.pack(
        _PARTITION, True, 1, _GROUP, 0, DATA, size, size, 0, 0, 0, 0, b"rootfs.sqfs", extra
    )
    with out.open("wb") as target, squashfs.open("rb") as source:
        target.write(header)
        target.seek(_TABLE)
        target.write(descriptor)
        target.seek(DATA)
        shutil.copyfileobj(source, target, 1 << 20)


def check_sif(path: Path) -> None:
    """Check that a file is a SIF and holds all that its descriptors say; reads two blocks.

    Raises:
        UserError: it is no SIF, or is shorter than it says (truncated).
    """
    with path.open("rb") as handle:
        header = handle.read(_HEADER.size)
        if len(header) < _HEADER.size or header[32:41] != _MAGIC:
            raise UserError("is no SIF image", where=str(path), fix=f"delete it; {BUILD}")
        fields = _HEADER.unpack(header)
        handle.seek(fields[9])
        table = handle.read(min(fields[10], _DESCRIPTORS * _DESCRIPTOR.size))
    needed = 0
    for at in range(0, len(table) - _DESCRIPTOR.size + 1, _DESCRIPTOR.size):
        descriptor = _DESCRIPTOR.unpack_from(table, at)
        if descriptor[1]:
            needed = max(needed, descriptor[5] + descriptor[6])
    if not needed or path.stat().st_size < needed:
        raise UserError(
            f"is truncated: {path.stat().st_size} of {needed} bytes",
            where=str(path),
            fix=f"delete it; {BUILD}",
        )


BUILD = "snakemake --cores all images"
"""The command that builds what is missing."""
