# SPDX-License-Identifier: MIT
# expect: deadlock|self-deadlock
# threads: outer
"""A pool of one worker, whose job submits another one and waits for it."""
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)


def inner():
    return 1


def outer():
    part = pool.submit(inner)
    print("ready", flush=True)
    return part.result()


def main():
    return pool.submit(outer).result()


main()
