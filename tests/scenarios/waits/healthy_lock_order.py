# SPDX-License-Identifier: MIT
# expect: none
"""Two locks, always in the same order."""
import threading
import time

outer, inner = threading.Lock(), threading.Lock()


def transfer():
    while True:
        with outer:
            time.sleep(0.05)
            with inner:
                time.sleep(0.05)


def audit():
    while True:
        with inner:
            time.sleep(0.1)
        time.sleep(0.01)


threads = [threading.Thread(target=f) for f in (transfer, transfer, audit)]
for thread in threads:
    thread.start()
print("ready", flush=True)
for thread in threads:
    thread.join()
