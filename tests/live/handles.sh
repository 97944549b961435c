#!/bin/sh
# SPDX-License-Identifier: MIT
# What a process holds, against its own account: see handles.py. Arguments: patterns of interpreters.
[ $# -gt 0 ] || set -- '3.6.*-pyenv' '3.11.*-system' '3.14.*-sid'
exec timeout -k 5 500 python3 "$(dirname "$0")/handles.py" "$@"
