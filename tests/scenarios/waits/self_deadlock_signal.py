# SPDX-License-Identifier: MIT
# expect: self-deadlock
# threads: on_reload < read_config
# says: config_lock
# certainty: proven
"""A signal handler takes the lock that its own thread holds."""
import signal
import threading

config_lock = threading.Lock()


def on_reload(number, frame):
    with config_lock:
        pass


def read_config():
    with config_lock:
        print("ready", flush=True)
        signal.raise_signal(signal.SIGUSR1)
        return {}


signal.signal(signal.SIGUSR1, on_reload)
read_config()
