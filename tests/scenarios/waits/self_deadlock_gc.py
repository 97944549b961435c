# SPDX-License-Identifier: MIT
# expect: self-deadlock
# threads: forget < register
# certainty: proven
"""The garbage collector runs a finalizer that takes the lock which the collecting thread holds."""
import gc
import threading
import weakref

registry_lock = threading.Lock()


class Node:
    def __init__(self):
        self.me = self
        weakref.finalize(self, forget)


def forget():
    with registry_lock:
        pass


def register():
    with registry_lock:
        print("ready", flush=True)
        gc.collect()


Node()
worker = threading.Thread(target=register, name="registrar")
worker.start()
worker.join()
