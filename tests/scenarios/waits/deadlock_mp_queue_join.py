# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: gather
# option: --children
# needs: semaphores
"""A child is joined before its queue was drained: its feeder thread cannot get rid of what was put."""
import multiprocessing

context = multiprocessing.get_context("fork")


def produce(results):
    results.put(b"x" * (1 << 20))


def gather():
    results = context.Queue()
    child = context.Process(target=produce, args=(results,))
    child.start()
    print("ready", flush=True)
    child.join()
    return results.get()


gather()
