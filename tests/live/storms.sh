#!/bin/sh
# SPDX-License-Identifier: MIT
# The programs of tests/scenarios/storms, watched on two interpreters: the system's, and Debian's 3.14. Every storm of
# exceptions must be found, and nothing on healthy programs. Arguments: other patterns of interpreters.
[ $# -gt 0 ] || set -- '3.*-system' '3.14.*-sid'
exec timeout -k 5 580 "$(dirname "$0")/../scenarios/run-storms" "$@"
