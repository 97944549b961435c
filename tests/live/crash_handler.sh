#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The crash handler as the kernel starts it: cores on its standard input, findings in its folder, and the service.
exec timeout -k 5 500 python3 "$(dirname "$0")/crash_handler.py" "$@"
