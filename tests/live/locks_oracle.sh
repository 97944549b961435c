#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Locks, containers and what threads wait at, against every interpreter here: locks_oracle.py tells what it has,
# locks_driver.c reads it from outside.
#
#   locks_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	result=$("$build/tests/live/locks_driver" "$here/locks_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
