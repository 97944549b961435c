# SPDX-License-Identifier: MIT
# expect: memory-leak
# certainty: proven
# says: work.<locals>.backlog
"""A worker thread that puts off more than it does: its backlog is a local variable of a frame that runs for ever."""
import collections
import threading
import time


def work():
    backlog = collections.deque()
    for step in range(13000):
        for number in range(100):
            backlog.append({"number": step * 100 + number})
        if step % 2:
            backlog.popleft()
        time.sleep(0.01)
    threading.Event().wait()


worker = threading.Thread(target=work, name="worker", daemon=True)
worker.start()
print("ready", flush=True)
worker.join()
