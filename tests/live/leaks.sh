#!/bin/sh
# SPDX-License-Identifier: MIT
# The programs of tests/scenarios/leaks, watched on two interpreters: the system's, and Debian's 3.14. Every leak must be
# found and named, and nothing on healthy programs. Arguments: other patterns of interpreters.
[ $# -gt 0 ] || set -- '3.*-system' '3.14.*-sid'
exec timeout -k 5 590 "$(dirname "$0")/../scenarios/run-leaks" --duration 240 "$@"
