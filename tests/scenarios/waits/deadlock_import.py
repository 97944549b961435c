# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: exec_module, refresh
# says: settings
# certainty: proven
"""A module's import waits for a thread that imports the same module."""
import importlib.abc
import importlib.util
import sys
import threading

started = threading.Event()


class Settings(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == "settings" else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        refresher = threading.Thread(target=refresh, name="refresher")
        refresher.start()
        started.wait()
        print("ready", flush=True)
        refresher.join()


def refresh():
    started.set()
    import settings
    return settings


sys.meta_path.insert(0, Settings())
import settings  # noqa: E402,F401
