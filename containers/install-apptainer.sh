#!/usr/bin/env bash
# install-apptainer.sh PREFIX [--unpinned] : Apptainer under PREFIX, without root; then
#     PATH=PREFIX/usr/bin:$PATH
# Debian has it in sid only, linked against a newer C library than Debian 12 has: it is unpacked
# beside a private copy of that library. Versions and hashes are those of apptainer.lock; --unpinned
# takes what the mirror has now, checked by the archive's signature alone.
# Needs patchelf, and at run time squashfuse and uidmap. On other systems take your own package.
set -euo pipefail
prefix=$(realpath -m "${1:?usage: install-apptainer.sh PREFIX [--unpinned]}")
here=$(cd "$(dirname "$0")" && pwd)
command -v patchelf >/dev/null || { echo "no patchelf here: apt-get install patchelf squashfuse uidmap" >&2; exit 2; }
sources=${ZPDBENCH_APT_SOURCES:-/etc/apt/sources.list.d/debian.sources}
mirror=$(grep -m1 -oP '^(URIs: |deb (\[[^]]*\] )?)\K\S+' "$sources") \
  || { echo "no Debian mirror in $sources: name a sources file by ZPDBENCH_APT_SOURCES" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # SUITE PACKAGE=VERSION...
  local suite=$1 dir=$work/$1
  shift
  mkdir -p "$dir"/{lists/partial,cache/archives/partial}
  : >"$dir/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$dir/sources.list"
  local options=(-qq -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$dir/lists" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache"
    -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3)
  apt-get "${options[@]}" update
  (cd "$work" && apt-get "${options[@]}" download "$@")
}

mapfile -t lines < <(grep -v '^#' "$here/apptainer.lock")
for suite in $(printf '%s\n' "${lines[@]}" | awk '{print $4}' | sort -u); do
  mapfile -t wanted < <(printf '%s\n' "${lines[@]}" | awk -v s="$suite" -v u="${2:-}" \
    '$4 == s {print u == "--unpinned" ? $1 : $1 "=" $2}')
  fetch "$suite" "${wanted[@]}" \
    || { echo "the mirror has other versions than apptainer.lock: --unpinned takes them, or name a" \
      "sources file of Debian's snapshot archive by ZPDBENCH_APT_SOURCES" >&2; exit 2; }
done
if [[ ${2:-} != --unpinned ]]; then
  for line in "${lines[@]}"; do
    read -r package _ sum _ <<<"$line"
    echo "$sum  $(echo "$work/${package}"_*.deb)" | sha256sum --check --quiet
  done
fi

fresh=$prefix.new
rm -rf "$fresh"
mkdir -p "$fresh/lib/glibc" "$work/libraries"
dpkg -x "$work"/apptainer_*.deb "$fresh"
for deb in "$work"/lib*.deb; do dpkg -x "$deb" "$work/libraries"; done
cp -a "$work"/libraries/usr/lib/x86_64-linux-gnu/*.so* "$fresh/lib/glibc/"
for program in usr/bin/apptainer usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
  patchelf --set-interpreter "$prefix/lib/glibc/ld-linux-x86-64.so.2" \
    --force-rpath --set-rpath "$prefix/lib/glibc" "$fresh/$program"
done
# It finds its files relative to itself; this is the layout it looks for.
ln -sfn ../etc "$fresh/usr/etc"
ln -sfn ../../etc "$fresh/usr/lib/etc"
ln -sfn ../var "$fresh/usr/lib/var"
mkdir -p "$fresh/usr/var/lib/apptainer/mnt/session"
ln -sfn apptainer "$fresh/usr/bin/singularity"
# No systemd is needed.
sed -i 's/^systemd cgroups = yes/systemd cgroups = no/' "$fresh/etc/apptainer/apptainer.conf"
rm -rf "$prefix"
mv "$fresh" "$prefix"
"$prefix/usr/bin/apptainer" --version
