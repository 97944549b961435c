#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Greenlets in pyspyd waits against a program's own account of them, on every interpreter here that has the module
# greenlet, or on those that match the arguments' patterns.
exec timeout -k 5 500 python3 "$(dirname "$0")/greenlets.py" "$@"
