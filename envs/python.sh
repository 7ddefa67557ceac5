#!/usr/bin/env bash
# Prints a CPython 3.11 that can make virtual environments: the one given, else the machine's own, else
# one that uv brings into .venv-uv. Usage: envs/python.sh [PYTHON], in the project's folder.
#
# uv is installed by whatever Python 3 there is, checked by hash (envs/uv.txt), and knows the hash of
# each Python that it fetches. UV_PYTHON_INSTALL_MIRROR says from where, and may be file:///a/folder.
# What is lacking is said in one line, before anything is installed.
set -euo pipefail

fail() { # WHAT FIX
  echo "make: $1 ($2)" >&2
  exit 2
}
usable() { # PYTHON CONDITION
  command -v "$1" >/dev/null && "$1" -c "import sys, venv, ensurepip; sys.exit(not ($2))" 2>/dev/null
}
reason() { # the last line of what a tool said
  grep -v '^ *$' .venv-uv/log | tail -n 1
}

is_311='sys.version_info[:2] == (3, 11) and sys.implementation.name == "cpython"'
if [[ -n ${1:-} ]]; then
  usable "$1" "$is_311" || fail "PYTHON=$1 is no CPython 3.11 with venv" \
    "give another, or leave PYTHON= out: one is found or fetched"
fi

# Scripts' first lines, PATH and Snakemake's patterns would read these otherwise.
odd="*[\'\"\`\\$\\\\{}:"$'\n'"]*"
[[ $PWD != $odd ]] || fail "this folder's path holds a quote, a colon, \$, a brace or the like: $PWD" \
  "move or clone it elsewhere; spaces are fine"
command -v git >/dev/null || fail "no git here: results could not name their commit" \
  "install it: apt-get install git, dnf install git"
free=$(df -Pk . | tail -n 1 | awk '{ print $(NF - 2) }')
((free * 1024 >= 6000000000)) || fail "$PWD has $((free * 1024 / 100000000))00 MB of disk left, and 6 GB are needed" \
  "free some, or clone on another disk"

for python in ${1:+"$1"} python3.11 python3 python; do
  if usable "$python" "$is_311"; then
    command -v "$python"
    exit
  fi
done

for python in python3 python3.{14,13,12,10,9,8} python ""; do
  [[ -z $python ]] || ! usable "$python" "sys.version_info >= (3, 8)" || break
done
[[ -n $python ]] || fail "no Python 3.11 here, and no python3 (3.8 or newer) with venv to fetch it by" \
  "install that: apt-get install python3-venv, dnf install python3"
if ! [[ -x .venv-uv/bin/uv ]]; then
  "$python" -m venv .venv-uv
  .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/uv.txt \
    2>.venv-uv/log >&2 || fail "uv cannot be installed: $(reason)" "see pip's settings: pip config list"
fi
export UV_PYTHON_INSTALL_DIR=$PWD/.venv-uv/python
.venv-uv/bin/uv python install --no-progress --no-bin 3.11 2>.venv-uv/log >&2 || fail "uv cannot fetch Python 3.11: $(reason)" \
  "install python3.11 with its venv, or set UV_PYTHON_INSTALL_MIRROR to a mirror, file:///folder if it is one"
.venv-uv/bin/uv python find --managed-python --no-project 3.11
