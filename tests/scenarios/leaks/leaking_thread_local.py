# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: Row
"""A cache in a threading.local of a thread that stays."""
import threading
import time

local = threading.local()


class Row:
    def __init__(self, number):
        self.number = number
        self.text = "row %d " % number + "x" * 200


def work():
    local.rows = {}
    for step in range(13000):
        for number in range(50):
            local.rows[step * 50 + number] = Row(step * 50 + number)
        time.sleep(0.01)
    threading.Event().wait()


worker = threading.Thread(target=work, daemon=True)
worker.start()
print("ready", flush=True)
worker.join()
