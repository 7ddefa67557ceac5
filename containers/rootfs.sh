#!/bin/sh
# rootfs.sh ROOT SITE HERE : put the Python packages into a Debian root file system and tidy up.
# Run by mmdebstrap as its last hook, with ROOT the new root, outside of it.
set -eu
root=$1 site=$2 here=$3
packages=/usr/local/lib/python3.11/dist-packages
mkdir -p "$root$packages" "$root/opt/zpdbench"
cp -R "$site/." "$root$packages/"
ln -s python3.11 "$root/usr/bin/python3"
install -m 755 "$here/zpdbench" "$root/usr/local/bin/zpdbench"
# The image is read-only, so byte code that is not in it is compiled again by every job.
# Unchecked: the time stamps of sources say nothing here. One process: the same bytes every time.
# Packages' own tests are left as sources. Some packages carry templates that are no Python: they
# make compileall fail (1) after it has compiled the rest. Any other failure is one.
code=0
said=$(PYTHONHASHSEED=0 chroot "$root" python3.11 -m compileall -q -x '/tests?/' \
  --invalidation-mode unchecked-hash "$packages" /usr/lib/python3.11 2>&1) || code=$?
case $said in *Traceback* | *OSError* | *MemoryError*) [ "$code" -eq 0 ] || code=2 ;; esac
if [ "$code" -gt 1 ]; then
  printf 'byte code cannot be compiled (%s): %s\n' "$code" "$said" | tail -n 5 >&2
  exit 1
fi
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/tmp/* \
  "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
: >"$root/etc/resolv.conf"
echo zpdbench >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
