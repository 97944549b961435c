#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What tracemalloc and the garbage collector have counted, against every interpreter here: tracemalloc_oracle.py tells
# what they say of themselves, tracemalloc_driver.c reads it from outside.
#
#   tracemalloc_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	result=$("$build/tests/live/tracemalloc_driver" "$here/tracemalloc_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
