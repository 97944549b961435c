#!/bin/sh
# SPDX-License-Identifier: MIT
# Where everything was made, against the program's own account: see origins.py. Arguments: patterns of interpreters.
exec timeout -k 5 300 python3 "$(dirname "$0")/origins.py" "$@"
