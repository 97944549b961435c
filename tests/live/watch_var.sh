#!/bin/sh
# SPDX-License-Identifier: MIT
#
# pyspyd watch --var against what a program prints of its own objects while it changes them, on every interpreter here,
# or on those that match the arguments' patterns.
exec timeout -k 5 580 python3 "$(dirname "$0")/watch_var.py" "$@"
