# SPDX-License-Identifier: MIT
# expect: thread-leak
# certainty: inferred
# says: keep_watch
"""Every job starts a thread that waits for something that never comes."""
import threading
import time

threading.stack_size(256 * 1024)
never = threading.Event()


def keep_watch():
    never.wait()


def handle_job(number):
    threading.Thread(target=keep_watch, name="Thread-%d (keep_watch)" % number, daemon=True).start()


print("ready", flush=True)
number = 0
while number < 2000:
    number += 1
    handle_job(number)
    time.sleep(0.1)
never.wait()
