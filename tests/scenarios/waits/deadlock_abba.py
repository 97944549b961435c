# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: transfer, transfer
# holder: Thread-2
# says: dst.guard
# certainty: proven
"""Two transfers between two accounts, in opposite directions."""
import threading

both = threading.Barrier(3)


class Account:
    def __init__(self):
        self.guard = threading.Lock()


def transfer(src, dst):
    with src.guard:
        both.wait()
        with dst.guard:
            pass


a, b = Account(), Account()
threads = [threading.Thread(target=transfer, args=(a, b), name="Thread-1"),
           threading.Thread(target=transfer, args=(b, a), name="Thread-2")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
