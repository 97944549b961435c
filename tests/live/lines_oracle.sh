#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Line numbers against the interpreters' own word, for every instruction of every code object of their standard
# libraries: lines_oracle.py in each interpreter, lines_driver.c at the other end of the pipe.
#
#   lines_oracle.sh [PATTERN…]    only interpreters whose names match; default: all but debug builds, whose tables are
#                                 the same
#
# BUILD         where the driver was built
# LINES_EVERY   only every so many-th module (default: all; one in ten where the driver has sanitizers in it)
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

case $build in
*/san-*) every=10 ;;
*) every=1 ;;
esac

one() {
	name=$1
	shift
	result=$("$@" - --every "${LINES_EVERY:-$every}" <"$here/lines_oracle.py" 2>"$list.err" |
		"$build/tests/live/lines_driver")
	result_status=$?
	echo "$name: $result"
	sed "s|^|$name: |" "$list.err"
	[ "$result_status" = 0 ] && [ ! -s "$list.err" ]
}

[ $# -gt 0 ] || set -- '*-system' '*-pyenv' '*-trixie' '*-sid' '*-bullseye' '*-built'
each_interpreter one "$@"
