#!/bin/sh
# SPDX-License-Identifier: MIT
# Code that is freed and made again at speed: see reused.py. Arguments: patterns of interpreters.
exec timeout -k 5 400 python3 "$(dirname "$0")/reused.py" "$@"
