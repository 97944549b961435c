# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: dine, dine, dine
# holder: Plato
# says: right
# certainty: proven
"""Three philosophers, each with the fork to his left."""
import threading

seated = threading.Barrier(4)
forks = [threading.Lock() for _ in range(3)]


def dine(left, right):
    with left:
        seated.wait()
        with right:
            pass


threads = [threading.Thread(target=dine, args=(forks[i], forks[(i + 1) % 3]), name=name)
           for i, name in enumerate(["Plato", "Kant", "Hume"])]
for thread in threads:
    thread.start()
seated.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
