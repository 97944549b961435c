# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2034
#
# Sourced by the oracle tests: run over all interpreters here, or those whose names match one of the given patterns.

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../../build}
tab=$(printf '\t')
list=$(mktemp)
trap 'rm -f "$list" "$list.err"' EXIT

wanted() {
	candidate=$1
	shift
	[ $# -gt 0 ] || return 0
	for pattern in "$@"; do
		# shellcheck disable=SC2254 # the pattern is meant as one
		case $candidate in
		$pattern) return 0 ;;
		esac
	done
	return 1
}

# each_interpreter FUNCTION [PATTERN…]: calls FUNCTION NAME COMMAND… for each; ends the script.
each_interpreter() {
	each=$1
	shift
	status=0 seen=0
	"$here/../../tools/interpreters" >"$list" || exit 1
	while IFS=$tab read -r name command; do
		wanted "$name" "$@" || continue
		seen=$((seen + 1))
		# shellcheck disable=SC2086 # a command of several words
		"$each" "$name" $command || status=1
	done <"$list"
	if [ "$seen" = 0 ]; then
		echo "no interpreter found"
		exit 77
	fi
	exit "$status"
}
