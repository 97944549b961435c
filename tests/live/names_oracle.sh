#!/bin/sh
# SPDX-License-Identifier: MIT
#
# How frames name objects, and which locks they have acquired without a `with`, against every interpreter here:
# names_oracle.py tells what is so in each frame, names_driver.c reads it from outside.
#
#   names_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	result=$("$build/tests/live/names_driver" "$here/names_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
