#!/bin/sh
# SPDX-License-Identifier: MIT
# Targets that change under the reader's hands: see churn.py. Arguments: patterns of interpreters.
exec timeout -k 5 500 python3 "$(dirname "$0")/churn.py" "$@"
