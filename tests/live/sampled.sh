#!/bin/sh
# SPDX-License-Identifier: MIT
# Known threads, sampled by each source on every interpreter: see sampled.py. Arguments: patterns of interpreters.
exec timeout -k 5 400 python3 "$(dirname "$0")/sampled.py" "$@"
