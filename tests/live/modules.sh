#!/bin/sh
# SPDX-License-Identifier: MIT
# Imported modules and libraries, against the target's own account: see modules.py. Arguments: patterns of interpreters.
[ $# -gt 0 ] || set -- '3.6.*-pyenv' '3.8.*-pyenv' '3.11.*-system' '3.12.*-pyenv' '3.13.*t-built' '3.14.*-sid'
exec timeout -k 5 500 python3 "$(dirname "$0")/modules.py" "$@"
