#!/bin/sh
# SPDX-License-Identifier: MIT
# Snapshots read after the process has ended, against what was said of it before: see snapshot.py. Arguments: patterns of
# interpreters.
[ $# -gt 0 ] || set -- '3.8.*-pyenv' '3.11.*-system' '3.13.*-pyenv'
exec timeout -k 5 300 python3 "$(dirname "$0")/snapshot.py" "$@"
