# SPDX-License-Identifier: MIT
# expect: none
"""Reads its orders from stdin, line by line."""
import sys
import threading


def work(wanted):
    wanted.wait()


threading.Thread(target=work, args=(threading.Event(),), daemon=True).start()
print("ready", flush=True)
for order in sys.stdin:
    print(order)
