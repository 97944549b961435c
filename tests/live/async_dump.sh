#!/bin/sh
# SPDX-License-Identifier: MIT
#
# pyspyd dump --async against a program's own account of its tasks, on every interpreter here from 3.8 on, or on those
# that match the arguments' patterns.
exec timeout -k 5 580 python3 "$(dirname "$0")/async_dump.py" "$@"
