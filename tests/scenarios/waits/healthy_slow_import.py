# SPDX-License-Identifier: MIT
# expect: none
"""A module that takes long to import, while another thread waits for it."""
import importlib.abc
import importlib.util
import sys
import threading
import time


class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == "slow" else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        threading.Thread(target=use, daemon=True).start()
        print("ready", flush=True)
        for _ in range(10000):
            time.sleep(0.1)


def use():
    import slow
    return slow


sys.meta_path.insert(0, Slow())
import slow  # noqa: E402,F401
