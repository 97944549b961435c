#!/bin/sh
# SPDX-License-Identifier: MIT
# A thread that runs, dumped again and again on every interpreter: see spinning.py. Arguments: patterns of interpreters.
exec timeout -k 5 400 python3 "$(dirname "$0")/spinning.py" "$@"
