#!/usr/bin/env bash
# run-oci.sh STAGE COMMAND... : a command in a stage's image with Podman or Docker, without network.
# The working directory is bound read-write, the project's unpacked wheel read-only.
# DOCKER: docker, podman, or one with options, such as "podman --runtime runc";
# DOCKER_RUN: further options of `run`.
set -euo pipefail
stage=${1:?usage: run-oci.sh STAGE COMMAND...}
shift
project=$(cd "$(dirname "$0")/.." && pwd)
python=$project/.venv/bin/python
engine=${DOCKER:-$(command -v podman || command -v docker)} \
  || { echo "neither podman nor docker is here" >&2; exit 2; }
read -r name wheel < <("$python" - "$project" "$stage" <<'PY'
import sys
from pathlib import Path
project, stage = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, str(project / "src"))
from zpdbench.images import names, wheel
print(names.image_name(project, stage), wheel.unpacked(project, project / ".cache/images"))
PY
)
image=zpdbench/$stage:${name#"$stage"-}
archive=$project/.cache/images/$name.oci.tar
if ! $engine image inspect "$image" >/dev/null 2>&1; then
  [[ -f $archive ]] || { echo "no $archive: snakemake --cores all images" >&2; exit 2; }
  $engine load --quiet --input "$archive" >/dev/null
fi
# shellcheck disable=SC2086
exec $engine run --rm --network none ${DOCKER_RUN:-} --volume "$wheel:/opt/zpdbench:ro" \
  --volume "$PWD:$PWD" --workdir "$PWD" "$image" "$@"
