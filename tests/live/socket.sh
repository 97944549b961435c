#!/bin/sh
# SPDX-License-Identifier: MIT
# The service's socket against well-behaved, other users' and hostile clients. See socket.py.
exec timeout -k 5 300 python3 "$(dirname "$0")/socket_clients.py" "$@"
