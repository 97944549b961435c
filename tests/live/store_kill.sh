#!/bin/sh
# SPDX-License-Identifier: MIT
# A store whose process is killed in the middle of its work: see store_kill.py.
exec timeout -k 5 300 python3 "$(dirname "$0")/store_kill.py" "$@"
