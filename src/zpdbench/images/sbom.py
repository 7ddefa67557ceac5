"""What is in an image, in CycloneDX 1.5 (JSON): every Debian and Python package with its hash."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from zpdbench.images.names import DebianPackage
from zpdbench.images.wheels import PythonPackage


def bill_of_materials(
    image: str, debian: Sequence[DebianPackage], python: Sequence[PythonPackage]
) -> str:
    """The CycloneDX document of an image called `image` (its name with the digest).

    A Debian package has its file's SHA-256, a Python package the SHA-256 of its RECORD, which
    itself has the hash of each file. No time and no random number: the same image, the same bytes.
    """
    components = [_debian(p) for p in debian] + [_python(p) for p in python]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'zpdbench:{image}')}",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": image, "bom-ref": image},
        },
        "components": sorted(components, key=lambda c: c["bom-ref"]),
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _debian(package: DebianPackage) -> dict[str, Any]:
    url = (
        f"pkg:deb/debian/{quote(package.name, safe='')}@{quote(package.version, safe='')}"
        f"?arch={package.architecture}&distro=bookworm"
    )
    return {
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": url,
        "bom-ref": url,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
    }


def _python(package: PythonPackage) -> dict[str, Any]:
    url = f"pkg:pypi/{package.name}@{quote(package.version, safe='')}"
    component: dict[str, Any] = {
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": url,
        "bom-ref": url,
        "properties": [
            {"name": "zpdbench:record-sha256", "value": package.record_sha256},
            {"name": "zpdbench:size", "value": str(package.size)},
        ],
    }
    if package.license:
        component["licenses"] = [{"license": {"name": package.license}}]
    return component
