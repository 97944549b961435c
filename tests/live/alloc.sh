#!/bin/sh
# SPDX-License-Identifier: MIT
# Where memory comes from, beside the interpreter's own account: see alloc.py. Arguments: patterns of interpreters.
exec timeout -k 5 600 python3 "$(dirname "$0")/alloc.py" "$@"
