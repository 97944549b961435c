#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What `pyspyd dump` says of every thread of stacks_oracle.py (some seventy situations) against what the program says
# of itself, on every interpreter: all frames, names, lines, thread names and ids; then variables under --locals.
#
#   stacks_oracle.sh [PATTERN…]    only interpreters whose names match
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"
pyspyd=${PYSPYD:-$build/pyspyd}

one() {
	name=$1
	shift
	one_status=0
	for mode in "" --locals; do
		# shellcheck disable=SC2086 # none or one word
		timeout -k 5 280 python3 "$here/stacks_driver.py" "$pyspyd" $mode "$@" >"$list.out" 2>&1 || one_status=1
		sed "s|^|$name $mode: |" "$list.out"
	done
	rm -f "$list.out"
	return $one_status
}

each_interpreter one "$@"
