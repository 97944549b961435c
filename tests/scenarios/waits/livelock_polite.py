# SPDX-License-Identifier: MIT
# expect: livelock
# threads: pass_by, pass_by
"""Two threads that give way to each other, again and again: neither gets both locks."""
import threading
import time

step = threading.Barrier(2)
started = threading.Barrier(3)


def pass_by(mine, theirs):
    started.wait()
    while True:
        with mine:
            step.wait()
            got = theirs.acquire(timeout=0.05)
            step.wait()
        if got:
            return
        time.sleep(0.02)


a, b = threading.Lock(), threading.Lock()
threads = [threading.Thread(target=pass_by, args=(a, b), name="one"),
           threading.Thread(target=pass_by, args=(b, a), name="two")]
for thread in threads:
    thread.start()
started.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
