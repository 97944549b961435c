#!/bin/sh
# SPDX-License-Identifier: MIT
# The programs of tests/scenarios/waits, watched on two interpreters: the system's, and Debian's 3.14. Every hang must be
# found, and nothing on healthy programs. Arguments: other patterns of interpreters. Where the time is over first, the
# sums so far are printed.
[ $# -gt 0 ] || set -- '3.*-system' '3.14.*-sid'
exec timeout -k 5 580 "$(dirname "$0")/../scenarios/run" "$@"
