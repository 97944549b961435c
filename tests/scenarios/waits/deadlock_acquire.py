# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: load, store
# holder: storer
# certainty: inferred
"""Two plain locks in opposite order by bare acquire(): nothing on the stack says who holds them."""
import threading

both = threading.Barrier(3)


class Store:
    def __init__(self):
        self.index = threading.Lock()
        self.data = threading.Lock()

    def load(self):
        self.index.acquire()
        both.wait()
        self.data.acquire()
        self.data.release()
        self.index.release()

    def store(self):
        self.data.acquire()
        both.wait()
        self.index.acquire()
        self.index.release()
        self.data.release()


shared = Store()
threads = [threading.Thread(target=shared.load, name="loader"), threading.Thread(target=shared.store, name="storer")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
