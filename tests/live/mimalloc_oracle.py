# SPDX-License-Identifier: MIT
"""Fills the heaps of an interpreter whose allocator is mimalloc and says which objects are there.

Writes one line for each check, then "ready", and waits until descriptor 3 is closed. mimalloc_driver.c reads the lines
and looks for the same in this process's memory. Addresses are hex:

    start PID
    blocks N               sys.getallocatedblocks()
    tracked ADDRESS        what gc.get_objects() lists
    object ADDRESS BYTES   any other object, and what it takes at least with what stands before it
"""

import gc
import os
import sys
import threading


class Plain:
    def __init__(self):
        self.x = 1


class Slotted:
    __slots__ = ("a", "b")


class Text(str):
    pass


def fill(n):
    """Every second one goes again, so that lists of free blocks are long and in no order."""
    made = [[Plain(), Slotted(), (i, object()), [i] * (i % 50), {i: i}, "text %d" % i, i * 1.5] for i in range(n)]
    return [x for group in made[::2] for x in group]


def in_thread(kept, done, go_on):
    kept.append(fill(500))
    done.release()
    go_on.acquire()


def threads_fill():
    """One thread that ends, one that stays; a third of what they made is freed here."""
    kept, done, go_on, never = [], threading.Semaphore(0), threading.Semaphore(0), threading.Semaphore(0)
    ends = threading.Thread(target=in_thread, args=(kept, done, go_on), daemon=True)
    stays = threading.Thread(target=in_thread, args=(kept, done, never), daemon=True)
    for thread in (ends, stays):
        thread.start()
        done.acquire()
    go_on.release()
    ends.join()
    for group in kept:
        del group[::3]
    return kept, never, stays


def sizes():
    """Of every kind of page: blocks of 8 to 1,024 bytes, medium and large ones, and huge ones of their own segment."""
    steps = [3, 9, 40, 100, 250, 480, 600, 1000, 5000, 9000, 20000, 70000, 140000, 300000, 1 << 20, 5 << 20, 17 << 20,
             40 << 20]
    return [b"b" * n for n in steps] + [Text("t" * n) for n in steps] + [tuple([None] * (n // 8 + 1)) for n in steps]


def size(o):
    """Of those that lie in one piece."""
    return sys.getsizeof(o) if type(o) in (bytes, str, tuple, float, int) else 0


def tell(lines, objects, tracked):
    lines.extend("tracked %x" % i for i in tracked)
    lines.extend("object %x %d" % (id(o), size(o)) for o in objects)
    return "\n".join(lines)


def main():
    kept = fill(3000)
    by_threads = threads_fill()
    large = sizes()
    gc.collect()
    gc.disable()
    objects = list(large)
    objects.extend(o for o in kept if not gc.is_tracked(o))
    text = tell(["start %d" % os.getpid()], objects, map(id, gc.get_objects()))
    gc.collect()
    for part in (text, "\nblocks %d" % sys.getallocatedblocks(), "\nready\n"):
        sys.stdout.write(part)
    sys.stdout.flush()
    os.read(3, 1)
    del by_threads


main()
