#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Core files against the living process that they were taken of, and cores of crashes, on every interpreter here, or on
# those that match the arguments' patterns; by default on two.
exec timeout -k 5 580 python3 "$(dirname "$0")/core.py" "$@"
