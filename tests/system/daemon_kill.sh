#!/bin/sh
# SPDX-License-Identifier: MIT
# The service is killed again and again in the middle of its work: see daemon_kill.py. DAEMON_KILLS: how often (100 at night).
[ "$(id -u)" = 0 ] || { echo "needs root: the service watches processes of others"; exit 77; }
exec timeout -k 5 580 python3 "$(dirname "$0")/daemon_kill.py" "${DAEMON_KILLS:-12}"
