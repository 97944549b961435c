#!/bin/sh
# SPDX-License-Identifier: MIT
# Reading forked workers leaves the memory that they share alone: see shared_memory.py. Arguments: patterns of interpreters.
[ $# -gt 0 ] || set -- '3.8.*-pyenv' '3.11.*-system' '3.14.*-sid'
exec timeout -k 5 300 python3 "$(dirname "$0")/shared_memory.py" "$@"
