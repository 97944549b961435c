# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: produce, consume
# holder: consumer
# says: full
# certainty: proven
"""Two Conditions entered in opposite order."""
import threading

both = threading.Barrier(3)
empty = threading.Condition()
full = threading.Condition(threading.Lock())


def produce():
    with empty:
        both.wait()
        with full:
            full.notify()


def consume():
    with full:
        both.wait()
        with empty:
            empty.notify()


threads = [threading.Thread(target=produce, name="producer"), threading.Thread(target=consume, name="consumer")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
