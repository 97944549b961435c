#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What systemd-coredump has stored, with a journal of the test's own: a journald in a mount namespace, into which entries
# are written as systemd-coredump writes them.
if [ "${1:-}" != inside ]; then
	[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
	[ -x /lib/systemd/systemd-journald ] || { echo "no systemd-journald"; exit 77; }
	[ -s /etc/machine-id ] || { echo "no /etc/machine-id"; exit 77; }
	logger --help 2>&1 | grep -q journald || { echo "no logger --journald"; exit 77; }
	unshare --mount true 2>/dev/null || { echo "no mount namespace"; exit 77; }
	mkdir -p /var/lib/systemd/coredump /var/log/journal || exit 77
	exec timeout -k 5 500 unshare --mount --propagation private "$0" inside "$@"
fi
shift
for folder in /run /var/log/journal /var/lib/systemd/coredump; do
	mount -t tmpfs -o mode=755 tmpfs "$folder" || exit 1
done
mkdir -p /run/systemd/journal
exec python3 "$(dirname "$0")/coredumps.py" "$@"
