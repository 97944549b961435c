#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The service's sinks against receivers that fail, hang, go away and come back, and a service that is killed:
# sinks_driver.c is the service, sinks.py the receivers. Arguments: names of tests.
exec timeout -k 5 580 python3 "$(dirname "$0")/sinks.py" "$@"
