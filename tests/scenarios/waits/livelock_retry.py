# SPDX-License-Identifier: MIT
# expect: livelock
# threads: take_both, take_both
"""Two threads that keep their own lock and try for the other's, with a timeout, for ever."""
import threading

both = threading.Barrier(3)


def take_both(mine, theirs):
    with mine:
        both.wait()
        while not theirs.acquire(timeout=0.05):
            pass


a, b = threading.Lock(), threading.Lock()
threads = [threading.Thread(target=take_both, args=(a, b), name="one"),
           threading.Thread(target=take_both, args=(b, a), name="two")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
