# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: finish_after, finish_after
# says: other
# certainty: proven
"""Two threads, each of which ends after the other one."""
import threading

both = threading.Barrier(3)


def finish_after(i):
    both.wait()
    other = threads[1 - i]
    other.join()


threads = [threading.Thread(target=finish_after, args=(i,), name="part-%d" % i) for i in range(2)]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
