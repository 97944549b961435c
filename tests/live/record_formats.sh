#!/bin/sh
# SPDX-License-Identifier: MIT
# The files that record writes, in every format and mode: see record_formats.py. Arguments: patterns of interpreters.
exec timeout -k 5 200 python3 "$(dirname "$0")/record_formats.py" "$@"
