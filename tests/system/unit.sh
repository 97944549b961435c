#!/bin/bash
# SPDX-License-Identifier: MIT
# The unit of the service: what systemd thinks of its sandbox, and that the sandbox leaves the service what it permits
# itself later (daemon/privileges_calls.def). Needs no running systemd.
set -u
cd "$(dirname "$0")/../.." || exit 1
unit=systemd/pyspyd.service
calls=daemon/privileges_calls.def
exposure_max=25 # tenths
not_needed="fchown" # SQLite's, for root alone
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
	echo "FAIL: $*"
	failures=$((failures + 1))
}

if ! systemd-analyze security --help 2>/dev/null | grep -q -e --offline; then
	echo "no systemd-analyze with --offline (systemd 250)"
	exit 77
fi

# The names behind a group, or a name itself.
expand() {
	local name
	for name; do
		case $name in
		@*) systemd-analyze syscall-filter "$name" | sed -n 's/^ \+\([a-z0-9_@].*\)/\1/p' |
			while read -r inner; do expand "$inner"; done ;;
		*) echo "$name" ;;
		esac
	done
}

# A threshold that is not met ends with a status of its own.
if ! systemd-analyze security --offline=true --threshold=$exposure_max "$unit" >"$work/security" 2>&1; then
	grep '^✗' "$work/security"
	fail "exposed more than $exposure_max tenths"
fi
tail -n 1 "$work/security"

: >"$work/permitted"
sed -n 's/^SystemCallFilter=//p' "$unit" >"$work/filters"
while read -r words; do
	# shellcheck disable=SC2086 # words
	if [ "${words#"~"}" = "$words" ]; then
		expand $words >>"$work/permitted"
	else
		expand ${words#"~"} | sort -u >"$work/without"
		grep -vxF -f "$work/without" "$work/permitted" >"$work/left"
		mv "$work/left" "$work/permitted"
	fi
done <"$work/filters"
[ "$(wc -l <"$work/permitted")" -gt 200 ] || fail "the unit permits hardly anything"

{
	sed -n 's/^CALLS("\(.*\)")$/\1/p' "$calls" | tr ' ' '\n'
	sed -n 's/^CALL_[IFNET]*(\([a-z0-9_]*\),.*/\1/p' "$calls"
	echo capset seccomp execve | tr ' ' '\n'
} | sort -u >"$work/wanted"
[ "$(wc -l <"$work/wanted")" -gt 100 ] || fail "$calls lists hardly anything"
missing=$(grep -vxF -f "$work/permitted" "$work/wanted" | grep -vxF "$not_needed" | tr '\n' ' ')
[ -z "$missing" ] || fail "the unit forbids what the service needs: $missing"
for call in ptrace process_vm_writev mount init_module io_uring_setup setuid keyctl; do
	! grep -qxF "$call" "$work/permitted" || fail "the unit permits $call"
	! grep -qxF "$call" "$work/wanted" || fail "$calls permits $call"
done

# Both say which capabilities.
in_unit=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit" | tr 'A-Z ' 'a-z\n' | sort)
in_code=$(tr -d '\n\t' <daemon/privileges.c | sed -n 's/.*static const cap_value_t kept\[\] = { \([A-Z_, ]*\) };.*/\1\n/p' |
	tr 'A-Z,' 'a-z\n' | tr -d ' ' | grep . | sort)
[ "$in_unit" = "$in_code" ] || fail "capabilities of the unit ($in_unit), of the code ($in_code)"
explained=$(sed -n 's/^\t{ "\(cap_[a-z_]*\)", BOTH,.*/\1/p' engine/pipeline/privileges.c | sort)
[ "$explained" = "$in_code" ] || fail "capabilities that doctor explains ($explained), of the code ($in_code)"
in_unit=$(sed -n 's/^AmbientCapabilities=//p' "$unit" | tr 'A-Z ' 'a-z\n' | sort)
[ "$in_unit" = "$in_code" ] || fail "ambient capabilities: $in_unit"
for capability in $in_code; do
	grep -qi "It Li \(.* , \)\?$capability\( ,\|\$\)" docs/man/pyspyd.conf.5 || fail "the manual does not explain $capability"
done
[ $failures = 0 ]
