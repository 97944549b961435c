# SPDX-License-Identifier: MIT
# expect: none
"""A lock that nobody will ever release, and that nobody wants."""
import signal
import threading

once = threading.Lock()


def first_time():
    return once.acquire(blocking=False)


initialiser = threading.Thread(target=first_time)
initialiser.start()
initialiser.join()
first_time()
print("ready", flush=True)
signal.pause()
