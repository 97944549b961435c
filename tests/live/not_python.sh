#!/bin/sh
# SPDX-License-Identifier: MIT
# What is no Python, or no process: exit statuses and sentences. See not_python.py.
exec timeout -k 5 120 python3 "$(dirname "$0")/not_python.py" "$@"
