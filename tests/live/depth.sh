#!/bin/sh
# SPDX-License-Identifier: MIT
# Deep recursion on every interpreter: see depth.py. Arguments: patterns of interpreters.
exec timeout -k 5 580 python3 "$(dirname "$0")/depth.py" "$@"
