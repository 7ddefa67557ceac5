#!/usr/bin/env bash
# Resolve debian.in to debian.lock with the sources of this machine (or ZPDBENCH_APT_SOURCES).
# Usage: containers/lock.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH=src "${1:-.venv/bin/python}" -m zpdbench.images.lock_debian . "$(date -u +%Y%m%dT000000Z)"
