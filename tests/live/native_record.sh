#!/bin/sh
# SPDX-License-Identifier: MIT
# record --native against programs with known stacks: see native_record.py. Arguments: patterns of interpreters.
exec timeout -k 5 300 python3 "$(dirname "$0")/native_record.py" "$@"
