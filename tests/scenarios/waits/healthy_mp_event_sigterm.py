# SPDX-License-Identifier: MIT
# expect: none
# needs: semaphores
"""Children wait for an event that the parent, which joins them, sets in its signal handler."""
import multiprocessing
import signal

context = multiprocessing.get_context("fork")
stop = context.Event()


def work():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stop.wait()


children = [context.Process(target=work) for _ in range(2)]
for child in children:
    child.start()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
print("ready", flush=True)
for child in children:
    child.join()
