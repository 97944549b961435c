# SPDX-License-Identifier: MIT
# expect: hang|deadlock
# threads: serve, wait_until_loaded
# option: --hang-after 3
"""An Event that only a thread sets that has ended without it."""
import threading

loaded = threading.Event()


def load(fail):
    if not fail:
        loaded.set()


def wait_until_loaded():
    loaded.wait()


def serve():
    waiter = threading.Thread(target=wait_until_loaded, name="waiter")
    waiter.start()
    print("ready", flush=True)
    waiter.join()


loader = threading.Thread(target=load, args=(True,), name="loader")
loader.start()
loader.join()
serve()
