#!/bin/sh
# SPDX-License-Identifier: MIT
# Native and merged stacks against gdb and against what programs do: see native_oracle.py. Arguments: patterns of
# interpreters.
exec timeout -k 5 600 python3 "$(dirname "$0")/native_oracle.py" "$@"
