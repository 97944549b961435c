#!/bin/sh
# SPDX-License-Identifier: MIT
# Blocks of mimalloc's heaps, as seen from outside, against what is in them: of free-threaded interpreters, and of others
# that are told to use it, which have the same structures without the parts that threads need.
#
#   tests/live/mimalloc_oracle.sh [PATTERN…]   interpreters whose names match (default: all from 3.13 on)
#
# BUILD   where the driver was built
set -u

# shellcheck source=tests/live/oracle_common.sh
. "$(dirname "$0")/oracle_common.sh"

one() {
	name=$1
	shift
	allocator=mimalloc
	case $name in *.*.*t-*) allocator= ;; esac
	result=$(PYTHONMALLOC=$allocator "$build/tests/live/mimalloc_driver" "$here/mimalloc_oracle.py" "$@" - \
		</dev/null 2>&1)
	result_status=$?
	echo "$name: $result"
	return "$result_status"
}

[ $# -gt 0 ] || set -- '3.1[3-9]*' '3.[2-9][0-9]*'
each_interpreter one "$@"
