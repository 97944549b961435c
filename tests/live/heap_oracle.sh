#!/bin/sh
# SPDX-License-Identifier: MIT
# Counts of objects as seen from outside against each interpreter's own. Arguments: patterns of interpreters.
exec python3 "$(dirname "$0")/heap_oracle.py" "$@"
