#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The exceptions that `pyspyd dump` shows against the program's own account of them, on every interpreter here, or on
# those that match the arguments' patterns; by default on two.
exec timeout -k 5 580 python3 "$(dirname "$0")/exceptions.py" "$@"
