#!/bin/sh
# SPDX-License-Identifier: MIT
# Native stacks in libraries that people use against gdb: see native_corpus.py. Arguments: patterns of
# interpreters.
exec timeout -k 5 600 python3 "$(dirname "$0")/native_corpus.py" "$@"
