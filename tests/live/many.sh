#!/bin/sh
# SPDX-License-Identifier: MIT
# Faults in a few among many processes that hardly run: see many.py. Arguments: patterns of interpreters.
exec timeout -k 5 580 python3 "$(dirname "$0")/many.py" "${@:-3.11*}"
