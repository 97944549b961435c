#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What keeps objects alive, against every interpreter here: keepers_oracle.py keeps some and tells how, keepers_driver.c
# finds it out.
#
#   keepers_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	result=$("$build/tests/live/keepers_driver" "$here/keepers_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
