#!/bin/bash
# SPDX-License-Identifier: MIT
# The recipes under packaging/ name what the tree needs and what its unit has: libraries, folders, capabilities.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYSPYD="${PYSPYD:-build/pyspyd}"
recipe=packaging/Containerfile
pod=packaging/kubernetes/daemonset.yaml
failures=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

fail() {
	echo "FAIL: $*"
	failures=$((failures + 1))
}

# Libraries that the program is linked with; those of the C library come with every image.
command -v readelf >/dev/null && command -v dpkg-query >/dev/null || { echo "needs readelf and dpkg"; exit 77; }
readelf -d "$PYSPYD" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' >"$work/needed"
[ "$(wc -l <"$work/needed")" -gt 5 ] || fail "$PYSPYD needs hardly any library"
while read -r library; do
	case $library in libc.so.* | libm.so.* | ld-linux*) continue ;; esac
	package=$(dpkg-query -S "*/$library" 2>/dev/null | sed -n '1s/:.*//p')
	grep -qw -- "${package:-$library}" "$recipe" || fail "$recipe lacks ${package:-$library}"
	grep -qw -- "${package:-$library}" tools/debian-tree || fail "tools/debian-tree lacks $package"
done <"$work/needed"

# Libraries that it is compiled with.
for library in $(sed -n 's/^PKGS := //p' Makefile) libcap; do
	grep -qF "pkgconfig($library)" packaging/pyspyd.spec || fail "packaging/pyspyd.spec lacks pkgconfig($library)"
done
# What `make` asks for on Debian, the package asks for; what every build has is left out.
sed -n '/^packages="/,/"$/p' tools/install-deps | sed '/^\[/,$d; s/packages=//; s/"//g' | tr ' ' '\n' |
	grep -vxE '|gcc|libc6-dev|make|python3' >"$work/build"
while read -r package; do
	grep -qE "^ $package( .*)?,$" packaging/debian/control || fail "packaging/debian/control lacks $package"
done <"$work/build"

# The image is made of the folders that are copied, and no others.
mkdir "$work/context"
while read -r folder; do
	cp -a "$folder" "$work/context/" || fail "$recipe copies $folder"
done < <(sed -n 's/^COPY \(.*\) [^ ]*$/\1/p' "$recipe" | grep -v -e '^--from' -e / | tr ' ' '\n')
make -C "$work/context" -n install BUILD="$work/context/build" >"$work/log" 2>&1 || {
	tail -n 5 "$work/log"
	fail "what $recipe copies cannot be built"
}
for folder in engine cli daemon bpf; do
	[ ! -d "$folder" ] || [ -d "$work/context/$folder" ] || fail "$recipe does not copy $folder"
done

# Everywhere the unit's capabilities.
in_unit=$(sed -n 's/^CapabilityBoundingSet=//p' systemd/pyspyd.service | sed 's/CAP_//g' | tr ' ' '\n' | sort | tr '\n' ' ')
in_pod=$(sed -n 's/^ *add: \[\(.*\)\]$/\1/p' "$pod" | tr -d '" ' |
	tr ',' '\n' | sort | tr '\n' ' ')
[ "$in_pod" = "$in_unit" ] || fail "capabilities: $pod has $in_pod, the unit $in_unit"
in_text=$(grep -oE -- '--cap-add=[A-Z_]+' packaging/README.md | cut -d= -f2 | sort | tr '\n' ' ')
[ "$in_text" = "$in_unit" ] || fail "capabilities: packaging/README.md has $in_text, the unit $in_unit"
version=$(sed -n 's/^#define PYSPYD_VERSION "\(.*\)"$/\1/p' include/pyspyd/version.h)
grep -qF "image: pyspyd:$version" "$pod" || fail "$pod is of another version"
[ "$failures" = 0 ]
