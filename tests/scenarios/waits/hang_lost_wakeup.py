# SPDX-License-Identifier: MIT
# expect: hang|deadlock
# threads: collect
# option: --hang-after 3
"""A Condition that was notified before anybody waited; the notifier has ended."""
import threading

changed = threading.Condition()


def announce():
    with changed:
        changed.notify_all()


def collect():
    with changed:
        print("ready", flush=True)
        changed.wait()


announcer = threading.Thread(target=announce)
announcer.start()
announcer.join()
collector = threading.Thread(target=collect, name="collector")
collector.start()
collector.join()
