#!/bin/sh
# SPDX-License-Identifier: MIT
# Time off CPU against a program's own account: see offcpu.py. Arguments: patterns of interpreters.
exec timeout -k 5 300 python3 "$(dirname "$0")/offcpu.py" "$@"
