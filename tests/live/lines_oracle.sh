#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Line numbers against the interpreters' own word, for every instruction of every code object of their standard
# libraries: lines_oracle.py in each interpreter, lines_driver.c at the other end of the pipe.
#
#   lines_oracle.sh DRIVER [--every N] [NAME…]    only every N-th module; only interpreters of these names (patterns)
set -u

here=$(cd "$(dirname "$0")" && pwd)
tab=$(printf '\t')
driver=$1
shift
sample=
if [ "${1:-}" = --every ]; then
	sample="--every $2"
	shift 2
fi
names=${*:-*}
list=$(mktemp)
trap 'rm -f "$list" "$list.err"' EXIT
"$here/../../tools/interpreters" >"$list" || exit 1

wanted() {
	set -f
	for pattern in $names; do
		# shellcheck disable=SC2254 # the pattern is meant as one
		case $1 in
		$pattern) return 0 ;;
		esac
	done
	return 1
}

status=0
while IFS=$tab read -r name command; do
	wanted "$name" || continue
	# shellcheck disable=SC2086 # a command of several words
	result=$($command - $sample <"$here/lines_oracle.py" 2>"$list.err" | "$driver") || status=1
	echo "$name: $result"
	if [ -s "$list.err" ]; then
		sed "s|^|$name: |" "$list.err"
		status=1
	fi
done <"$list"
if [ ! -s "$list" ]; then
	printf 'skip\tlines oracle\tno interpreter found\n'
fi
exit $status
