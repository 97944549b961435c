#!/bin/sh
# SPDX-License-Identifier: MIT
# spiking-thread found where it must be, and only there: see spiking.py.
exec python3 "$(dirname "$0")/spiking.py"
