# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: flush, append
# holder: flusher
# says: self.state
# certainty: proven
"""A Lock and an RLock in opposite order; the RLock is taken by acquire()."""
import threading

both = threading.Barrier(3)


class Journal:
    def __init__(self):
        self.state = threading.RLock()
        self.disk = threading.Lock()

    def flush(self):
        self.state.acquire()
        try:
            both.wait()
            with self.disk:
                pass
        finally:
            self.state.release()

    def append(self):
        with self.disk:
            both.wait()
            with self.state:
                pass


journal = Journal()
threads = [threading.Thread(target=journal.flush, name="flusher"),
           threading.Thread(target=journal.append, name="appender")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
