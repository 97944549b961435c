#!/bin/sh
# SPDX-License-Identifier: MIT
# All of the configuration is changed while the service works: see reload.py.
[ "$(id -u)" = 0 ] || { echo "needs root: the service watches processes of others"; exit 77; }
exec timeout -k 5 300 python3 "$(dirname "$0")/reload.py"
