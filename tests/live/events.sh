#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Processes that come, fork, execute and end, seen with the kernel's events and by scans alone.
exec timeout -k 5 500 python3 "$(dirname "$0")/events.py" "$@"
