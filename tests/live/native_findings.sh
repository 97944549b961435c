#!/bin/sh
# SPDX-License-Identifier: MIT
# Native frames in findings: see native_findings.py. Arguments: patterns of interpreters.
exec timeout -k 5 300 python3 "$(dirname "$0")/native_findings.py" "$@"
