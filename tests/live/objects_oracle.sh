#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The readers of objects against every interpreter here: objects_oracle.py tells what it has, objects_driver.c reads it
# from outside.
#
#   objects_oracle.sh DRIVER [NAME…]    only interpreters of these names (patterns)
set -u

here=$(cd "$(dirname "$0")" && pwd)
tab=$(printf '\t')
driver=$1
shift
names=${*:-*}
list=$(mktemp)
trap 'rm -f "$list"' EXIT
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
	result=$("$driver" "$here/objects_oracle.py" $command - </dev/null 2>&1) || status=1
	echo "$name: $result"
done <"$list"
if [ ! -s "$list" ]; then
	printf 'skip\tobjects oracle\tno interpreter found\n'
fi
exit $status
