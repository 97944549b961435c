#!/bin/sh
# SPDX-License-Identifier: MIT
#
# By which paths objects are reached from modules and frames, against every interpreter here: roots_oracle.py puts
# objects into every place and says the path, roots_driver.c reads it from outside.
#
#   roots_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	result=$("$build/tests/live/roots_driver" "$here/roots_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
