# SPDX-License-Identifier: MIT
# expect: deadlock|hang
# threads: start_up, initialise
# option: --hang-after 3
"""The main thread waits, with a lock, for an Event that a thread would set if it got that lock."""
import threading

config_lock = threading.Lock()
initialised = threading.Event()
started = threading.Event()


def initialise():
    started.set()
    with config_lock:
        initialised.set()


def start_up():
    with config_lock:
        threading.Thread(target=initialise, name="initialiser").start()
        started.wait()
        print("ready", flush=True)
        initialised.wait()


start_up()
