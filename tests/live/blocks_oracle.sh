#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The `with` blocks of frames, generators and what they await, against every interpreter here: blocks_oracle.py tells
# what each frame is in, blocks_driver.c reads it from outside.
#
#   blocks_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	result=$("$build/tests/live/blocks_driver" "$here/blocks_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
