"""Print the configuration's JSON schema (kept as config/schema.json)."""

from __future__ import annotations

import argparse

from zpdbench import study


def main(args: argparse.Namespace) -> None:
    """Write the schema to standard output."""
    print(study.schema(), end="")
