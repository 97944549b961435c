#!/bin/bash
# SPDX-License-Identifier: MIT
# doctor with less than all privileges: what it says of itself, and of a service that lacks something.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYSPYD="${PYSPYD:-build/pyspyd}"

[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
command -v setpriv >/dev/null || { echo "needs setpriv (util-linux)"; exit 77; }
setpriv --bounding-set=-sys_nice true || { echo "cannot drop capabilities here"; exit 77; }
work=$(mktemp -d) || exit 1
export PYSPYD_SOCKET="$work/sock"
service=""
failures=0

stop_service() {
	[ -n "$service" ] || return
	kill -KILL "$service" 2>/dev/null # unshare heeds no other signal
	wait "$service" 2>/dev/null
	service=""
}
trap 'stop_service; rm -rf "$work"' EXIT

fail() {
	echo "FAIL: $*"
	sed 's/^/  | /' "$work/out"
	failures=$((failures + 1))
}

# row SECTION NAME: the check with its lines. Sections: caller, service.
row() {
	awk -v wanted="$1" -v name="$2" '/^The service:/ { section = 1 }
		(wanted == "service") != (section == 1) { next }
		/^[a-zA-Z]/ { shown = $2 == name }
		shown { print }' "$work/out"
}

# says SECTION NAME RESULT [TEXT]
says() {
	local got
	got=$(row "$1" "$2")
	[ "${got%% *}" = "$3" ] || fail "$1: $2 is not $3"
	case $got in *"${4:-}"*) ;; *) fail "$1: $2 does not say $4" ;; esac
}

# start COMMAND…: a service, until it answers.
start() {
	stop_service
	"$@" "$PYSPYD" daemon --foreground --config "$work/conf" >"$work/log" 2>&1 &
	service=$!
	for ((i = 0; i < 600; i++)); do
		"$PYSPYD" findings >/dev/null 2>&1 && return
		kill -0 "$service" 2>/dev/null || break
		sleep 0.1
	done
	cat "$work/log"
	echo "FAIL: the service does not start"
	exit 1
}

cat >"$work/conf" <<CONF
[store]
path = $work/pyspyd.db
[socket]
path = $work/sock
[journal]
enabled = no
CONF

"$PYSPYD" doctor >"$work/out" 2>&1 || fail "doctor as root"
grep -q '^does not run here' "$work/out" || fail "a service that is not there"

setpriv --bounding-set=-sys_nice,-sys_ptrace "$PYSPYD" doctor >"$work/out" || fail "doctor without capabilities"
says caller cap_sys_nice limited "container: --cap-add=SYS_NICE"
says caller cap_sys_ptrace limited "no process of another user"
says caller memory ok

chmod 755 "$work"
cp "$PYSPYD" "$work/pyspyd"
setpriv --reuid=65534 --regid=65534 --clear-groups "$work/pyspyd" doctor >"$work/out" || fail "doctor as nobody"
for name in cap_sys_ptrace cap_dac_read_search cap_checkpoint_restore cap_sys_nice cap_bpf cap_perfmon; do
	says caller "$name" limited "sudo setcap "
done

start setpriv --bounding-set=-sys_nice
"$PYSPYD" doctor >"$work/out" || fail "doctor beside a service"
says caller cap_sys_nice ok
says service service ok version
says service cap_sys_nice limited "AmbientCapabilities=CAP_SYS_NICE"
says service cap_sys_ptrace ok
says service seccomp ok
says service user limited "User=pyspyd"
says service sandbox limited "ProtectSystem=strict"
grep -q 'without cap_sys_nice' "$work/log" || { cat "$work/log"; fail "the service did not say so when it started"; }

start unshare --pid --fork --kill-child --mount-proc
"$PYSPYD" doctor >"$work/out" || fail "doctor beside a service in a namespace"
says service pids limited "pid=host"
says service cap_sys_nice ok
[ "$failures" = 0 ]
