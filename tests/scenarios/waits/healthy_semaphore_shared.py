# SPDX-License-Identifier: MIT
# expect: none
"""One of a semaphore's two holders is stuck behind who waits for it; the other one, on nobody's stack, gives it back."""
import threading
import time

both = threading.Barrier(2)
seats = threading.BoundedSemaphore(2)
lock = threading.Lock()
seated = threading.Event()


def sit_down():
    seats.acquire()


def guest():
    sit_down()
    seated.set()
    time.sleep(3600)
    seats.release()


def inside():
    with seats:
        both.wait()
        with lock:
            pass


threading.Thread(target=guest, daemon=True).start()
seated.wait()
threading.Thread(target=inside, daemon=True).start()
with lock:
    both.wait()
    print("ready", flush=True)
    with seats:
        pass
