# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: rename, rename
# holder: second
# says: lock
"""Each lock is held inside the generator of a @contextmanager."""
import contextlib
import threading

both = threading.Barrier(3)
locks = {"a": threading.Lock(), "b": threading.Lock()}


@contextlib.contextmanager
def locked(name):
    lock = locks[name]
    with lock:
        yield


def rename(old, new):
    with locked(old):
        both.wait()
        with locked(new):
            pass


threads = [threading.Thread(target=rename, args=("a", "b"), name="first"),
           threading.Thread(target=rename, args=("b", "a"), name="second")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
