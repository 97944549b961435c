#!/bin/sh
# SPDX-License-Identifier: MIT
# handle-leak, thread-leak and process-leak found where they must be, and only there: see leaks.py.
exec python3 "$(dirname "$0")/leaks.py" "$@"
