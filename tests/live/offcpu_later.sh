#!/bin/sh
# SPDX-License-Identifier: MIT
# Interpreters that begin while time off CPU is recorded: see offcpu_later.py. Arguments: patterns of interpreters.
exec timeout -k 5 200 python3 "$(dirname "$0")/offcpu_later.py" "${@:-3.14*}"
