#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Event loops, tasks and futures as seen from outside against every interpreter here (3.8 and later): tasks_oracle.py
# tells what it has, tasks_driver.c reads it in its memory.
#
#   tasks_oracle.sh [PATTERN…]    only interpreters whose names match
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	case $name in
	3.[67].*) echo "$name: skipped: asyncio is read from 3.8 on" && return 0 ;;
	esac
	result=$("$build/tests/live/tasks_driver" "$here/tasks_oracle.py" "$@" - </dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

each_interpreter one "$@"
