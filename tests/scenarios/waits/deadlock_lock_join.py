# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: stop, work
# holder: MainThread
# says: state_lock
# certainty: proven
"""The main thread waits, with the lock, for a thread that wants the lock."""
import threading

state_lock = threading.Lock()
started = threading.Event()


def work():
    started.set()
    with state_lock:
        pass


def stop():
    with state_lock:
        worker = threading.Thread(target=work, name="worker")
        worker.start()
        started.wait()
        print("ready", flush=True)
        worker.join()


stop()
