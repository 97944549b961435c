#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Programs that crash, each in its own way, must be found; those that merely end must not.
exec timeout -k 5 500 python3 "$(dirname "$0")/crash.py" "$@"
