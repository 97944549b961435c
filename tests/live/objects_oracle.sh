#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The readers of objects against every interpreter here: objects_oracle.py tells what it has, objects_driver.c reads it
# from outside.
#
#   objects_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	result=$("$build/tests/live/objects_driver" "$here/objects_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
