#!/bin/sh
# SPDX-License-Identifier: MIT
# Dumps with native frames against gdb and against what programs do: see native_dump.py. Arguments: patterns of
# interpreters.
exec timeout -k 5 900 python3 "$(dirname "$0")/native_dump.py" "$@"
