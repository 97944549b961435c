#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What `dump --core` says that a process died of, over crashes of many kinds and their harmless twins.
exec timeout -k 5 280 python3 "$(dirname "$0")/triage.py" "$@"
