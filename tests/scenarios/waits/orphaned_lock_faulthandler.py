# SPDX-License-Identifier: MIT
# expect: orphaned-lock
# says: ledger
"""A lock whose holder has ended, in a program that has faulthandler's signal handlers: these release nothing."""
import faulthandler
import threading

ledger = threading.Lock()


def fail():
    ledger.acquire()


faulthandler.enable()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
print("ready", flush=True)
with ledger:
    pass
