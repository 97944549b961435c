# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: clean_up, shut_down
# certainty: proven
"""A thread waits for the main thread to end, which waits for that thread."""
import threading

started = threading.Event()


def clean_up():
    started.set()
    threading.main_thread().join()


def shut_down():
    cleaner = threading.Thread(target=clean_up, name="cleaner")
    cleaner.start()
    started.wait()
    print("ready", flush=True)
    cleaner.join()


shut_down()
