# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: copy, copy
# holder: backward
"""Two semaphores of one permit each, in opposite order."""
import threading

both = threading.Barrier(3)
tape = threading.Semaphore(1)
disk = threading.BoundedSemaphore(1)


def copy(source, target):
    with source:
        both.wait()
        with target:
            pass


threads = [threading.Thread(target=copy, args=(tape, disk), name="forward"),
           threading.Thread(target=copy, args=(disk, tape), name="backward")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
