#!/bin/bash
# SPDX-License-Identifier: MIT
# The service where it lives: a Debian 12 tree is booted in a container, the package installed in it as an operator does,
# and service.py looks at what comes of it.
#
# SERVICE_KILLS=n          how often the service is killed on the way (default 3)
# SERVICE_PROMETHEUS=yes   fetches Debian's Prometheus, has it scrape the service, and asks promtool about the metrics
set -u
cd "$(dirname "$0")/../.." || exit 1
export BUILD="${BUILD:-build}"

skip() {
	echo "$1"
	exit 77
}

[ "$(id -u)" = 0 ] || skip "needs root"
for tool in dh systemd-nspawn mmdebstrap nsenter; do
	command -v "$tool" >/dev/null || skip "needs $tool (tools/install-deps test)"
done

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
deb=$(DEB_BUILD_OPTIONS=nocheck tools/build-deb 2>"$work/log") || {
	tail -n 60 "$work/log"
	echo "the package does not build"
	exit 1
}
base=$(tools/debian-tree bookworm 2>"$work/log") || skip "no Debian tree: $(tail -n 1 "$work/log")"
cp -a --reflink=auto "$base" "$work/tree" || exit 1
mkdir "$work/tree/opt/test"
cp tests/scenarios/waits/deadlock_abba.py "$work/tree/opt/test/"
cp "$deb" "$work/tree/opt/test/pyspyd.deb"
if [ "${SERVICE_PROMETHEUS:-}" = yes ]; then
	mkdir "$work/fetched" && (cd "$work/fetched" && apt-get -q download prometheus && dpkg -x prometheus_*.deb .) \
		>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
	cp "$work/fetched/usr/bin/prometheus" "$work/tree/opt/test/"
	export PATH="$work/fetched/usr/bin:$PATH"
fi
python3 tests/system/service.py "$work"
