# SPDX-License-Identifier: MIT
# expect: hang|deadlock
# threads: phase, phase
# option: --hang-after 3
"""A barrier for three that only two ever reach: the third party has failed."""
import threading

phase_done = threading.Barrier(3)
started = threading.Barrier(4)


def phase(n):
    started.wait()
    if n == 2:
        return
    phase_done.wait()


threads = [threading.Thread(target=phase, args=(n,), name="party-%d" % n) for n in range(3)]
for thread in threads:
    thread.start()
started.wait()
threads[2].join()
while phase_done.n_waiting < 2:
    threading.Event().wait(0.01)
print("ready", flush=True)
for thread in threads:
    thread.join()
