# SPDX-License-Identifier: MIT
"""Makes locks in every state, containers of every shape and threads that wait at each kind of lock, and tells of them.

Runs on Python 3.6 and later, from its standard input. Writes one line for each check, then "ready", and waits until
descriptor 3 is closed. locks_driver.c reads the lines and checks them in this process's memory. Addresses and idents are
hex:

    start PID
    lock ADDRESS KIND LOCKED OWNER COUNT RECURSIVE MAXVALUE     py_lock_read
    other ADDRESS                                               no lock
    deque|queue|set ADDRESS LENGTH ITEM…                        their readers; a set's items in any order
    blocked TID lock ADDRESS         the thread sleeps at the word of that lock
    blocked TID join IDENT           it waits for the end of that thread (3.13+)
    blocked TID queue ADDRESS        it sleeps in the SimpleQueue's get
    blocked TID mutex OWNER RECURSIVE    at a mutex of the C library, which the thread OWNER (decimal) has
"""

import _multiprocessing
import _thread
import collections
import ctypes
import io
import os
import queue
import sys
import threading
import weakref

keep = []  # everything whose address was told
lines = []
libc = ctypes.CDLL(None, use_errno=True)
started = queue.Queue()


def native_id():
    return libc.syscall(186)


def tell(kind, thing, *fields):
    keep.append(thing)
    lines.append(" ".join([kind, "%x" % id(thing)] + [str(f) for f in fields]))


def in_thread(function):
    """Runs it to its end in a thread that goes on living."""
    done, forever = _thread.allocate_lock(), _thread.allocate_lock()
    done.acquire()
    forever.acquire()
    result = []

    def run():
        result.append(function())
        result.append(threading.get_ident())
        done.release()
        forever.acquire()

    keep.append(forever)
    _thread.start_new_thread(run, ())
    done.acquire()
    return result


# Locks

def plain_locks():
    for make in (_thread.allocate_lock, threading.Lock):
        lock = make()
        tell("lock", lock, "lock", 0, 0, 0, 0, 0)
        lock = make()
        lock.acquire()
        tell("lock", lock, "lock", 1, 0, 0, 0, 0)
        lock = make()
        with lock:
            pass
        tell("lock", lock, "lock", 0, 0, 0, 0, 0)
        lock = make()
        in_thread(lock.acquire)
        tell("lock", lock, "lock", 1, 0, 0, 0, 0)


def recursive_locks():
    me = "%x" % threading.get_ident()
    tell("lock", threading.RLock(), "rlock", 0, 0, 0, 1, 0)
    for times in (1, 2, 100):
        lock = threading.RLock()
        for _ in range(times):
            lock.acquire()
        tell("lock", lock, "rlock", 1, me, times, 1, 0)
    lock = threading.RLock()
    for _ in range(3):
        lock.acquire()
    lock.release()
    tell("lock", lock, "rlock", 1, me, 2, 1, 0)
    lock = threading.RLock()
    with lock:
        with lock:
            pass
    tell("lock", lock, "rlock", 0, 0, 0, 1, 0)
    lock = threading.RLock()
    owner = in_thread(lock.acquire)[1]
    tell("lock", lock, "rlock", 1, "%x" % owner, 1, 1, 0)


def shared_lock(kind, value, maxvalue):
    """A SemLock over a semaphore of our own: there may be no /dev/shm."""
    memory = ctypes.create_string_buffer(32)
    keep.append(memory)
    assert libc.sem_init(memory, 1, value) == 0
    return _multiprocessing.SemLock._rebuild(ctypes.addressof(memory), kind, maxvalue, None)


def shared_locks():
    me = "%x" % threading.get_ident()
    for maxvalue in (1, 3):
        for taken in range(maxvalue + 1):
            lock = shared_lock(1, maxvalue, maxvalue)
            for _ in range(taken):
                lock.acquire()
            tell("lock", lock, "semlock", int(taken == maxvalue), me if taken else 0, taken, 0, maxvalue)
    for taken in range(3):
        lock = shared_lock(0, 1, 1)
        for _ in range(taken):
            lock.acquire()
        tell("lock", lock, "semlock", int(taken > 0), me if taken else 0, taken, 1, 1)
    tell("lock", shared_lock(0, 0, 1), "semlock", 1, 0, 0, 1, 1)
    lock = shared_lock(0, 1, 1)
    owner = in_thread(lock.acquire)[1]
    tell("lock", lock, "semlock", 1, "%x" % owner, 1, 1, 1)
    try:
        lock = _multiprocessing.SemLock(1, 1, 1, "/pyspyd-%d" % os.getpid(), True)
    except OSError:
        return
    lock.acquire()
    tell("lock", lock, "semlock", 1, me, 1, 0, 1)


def buffered():
    for kind in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom):
        tell("lock", kind(open(os.devnull, "r+b", buffering=0)), "buffered", 0, 0, 0, 0, 0)


class Lock:
    pass


def no_locks():
    Lock.__name__ = "_thread.lock"
    for thing in (None, 1, "lock", [], Lock(), Lock, threading.Condition(), threading.Event(), io.BytesIO(), open(os.devnull)):
        tell("other", thing)


# Containers

def container(kind, thing, items):
    keep.append(items)
    tell(kind, thing, len(items), *["%x" % id(item) for item in items])


def deques():
    for n in (0, 1, 2, 31, 32, 33, 63, 64, 65, 128, 1000):
        for cut in (0, 1, 40, 70):
            d = collections.deque(str(i) for i in range(n))
            for _ in range(min(cut, n)):
                d.popleft()
            container("deque", d, list(d))
            d = collections.deque()
            for i in range(n):
                d.appendleft(float(i))
            for _ in range(min(cut, n)):
                d.pop()
            container("deque", d, list(d))
    d = collections.deque(maxlen=10)
    for i in range(1000):
        d.append("item %d" % i)
    container("deque", d, list(d))
    d = d.copy()
    d.rotate(3)
    container("deque", d, list(d))
    d = d.copy()
    d.clear()
    container("deque", d, [])


def queues():
    if not hasattr(queue, "SimpleQueue") or queue.SimpleQueue.__module__ != "_queue":
        return
    for n in (0, 1, 2, 7, 8, 9, 16, 17, 100, 1000):
        for cut in (0, 1, 5, 90):
            for more in (0, 1, 4, 40):
                q, items = queue.SimpleQueue(), ["item %d" % i for i in range(n + more)]
                for item in items[:n]:
                    q.put(item)
                for _ in range(min(cut, n)):
                    q.get()
                for item in items[n:]:
                    q.put(item)
                container("queue", q, items[min(cut, n):])


def sets():
    for n in (0, 1, 4, 5, 8, 9, 100, 1000):
        for kind in (set, frozenset):
            s = kind("item %d" % i for i in range(n))
            container("set", s, list(s))
    s = {"item %d" % i for i in range(100)}
    for i in range(0, 100, 3):
        s.remove("item %d" % i)
    container("set", s, list(s))
    s = {"item %d" % i for i in range(100)}
    s.clear()
    container("set", s, [])
    weak = weakref.WeakSet()
    for thing in (Lock(), Lock(), Lock()):
        keep.append(thing)
        weak.add(thing)
    keep.append(weak)
    container("set", weak.data, list(weak.data))


# Threads that wait

def blocked(what, *fields):
    lines.append(" ".join(["blocked", str(native_id()), what] + [str(f) for f in fields]))
    started.put(None)


def wait(function, *args):
    _thread.start_new_thread(function, args)
    started.get()


def wait_for_lock(lock, timeout):
    blocked("lock", "%x" % id(lock))
    lock.acquire(True, timeout)


def wait_inside(lock):
    blocked("lock", "%x" % id(lock))
    with lock:
        pass


def wait_for_condition(condition, tids):
    with condition:
        tids.append(native_id())
        condition.wait()


def condition_waiter():
    condition, tids = threading.Condition(), []
    keep.append(condition)
    _thread.start_new_thread(wait_for_condition, (condition, tids))
    while not condition._waiters:
        os.sched_yield()
    lines.append("blocked %d lock %x" % (tids[0], id(condition._waiters[0])))


def wait_for_thread(thread):
    lock = getattr(thread, "_tstate_lock", None)
    if lock is not None:
        keep.append(lock)
        blocked("lock", "%x" % id(lock))
    else:
        blocked("join", "%x" % thread.ident)
    thread.join()


def wait_for_item(q):
    blocked("queue", "%x" % id(q))
    q.get()


def wait_for_shared(lock):
    blocked("lock", "%x" % id(lock))
    lock.acquire()


class Raw(io.RawIOBase):
    def readable(self):
        return True

    def readinto(self, buffer):
        started.put(None)
        self.gate.acquire()


def read_slowly(reader, owner):
    owner.append(threading.get_ident())
    reader.read(1)


def wait_for_buffer(reader):
    blocked("lock", "%x" % id(reader))
    reader.read(1)


def buffer_waiters():
    raw, owner = Raw(), []
    raw.gate = _thread.allocate_lock()
    raw.gate.acquire()
    reader = io.BufferedReader(raw)
    wait(read_slowly, reader, owner)
    tell("lock", reader, "buffered", 1, "%x" % owner[0], 1, 0, 0)
    wait(wait_for_buffer, reader)


def wait_for_mutex(mutex, owner, recursive):
    blocked("mutex", owner, recursive)
    libc.pthread_mutex_lock(mutex)


def native_mutexes():
    for kind in range(4):
        for robust in (0, 1):
            attributes, mutex = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
            keep.extend((attributes, mutex))
            assert libc.pthread_mutexattr_init(attributes) == 0
            assert libc.pthread_mutexattr_settype(attributes, kind) == 0
            assert libc.pthread_mutexattr_setrobust(attributes, robust) == 0
            assert libc.pthread_mutex_init(mutex, attributes) == 0
            assert libc.pthread_mutex_lock(mutex) == 0
            wait(wait_for_mutex, mutex, native_id(), int(kind == 1))


def waiters():
    for make in (_thread.allocate_lock, threading.RLock):
        lock = make()
        keep.append(lock)
        lock.acquire()
        for timeout in (-1, 1000):
            wait(wait_for_lock, lock, timeout)
        wait(wait_inside, lock)
    condition_waiter()
    gate = threading.Lock()
    gate.acquire()
    thread = threading.Thread(target=gate.acquire, daemon=True)
    keep.extend((gate, thread))
    thread.start()
    wait(wait_for_thread, thread)
    wait(wait_for_thread, thread)
    wait(wait_for_thread, threading.main_thread())
    if hasattr(queue, "SimpleQueue") and queue.SimpleQueue.__module__ == "_queue":
        q = queue.SimpleQueue()
        keep.append(q)
        wait(wait_for_item, q)
    for kind in (0, 1):
        lock = shared_lock(kind, 0, 1)
        keep.append(lock)
        wait(wait_for_shared, lock)
    buffer_waiters()
    native_mutexes()


def main():
    for part in (plain_locks, recursive_locks, shared_locks, buffered, no_locks, deques, queues, sets, waiters):
        part()
    sys.stdout.write("start %d\n" % os.getpid() + "\n".join(lines) + "\nready\n")
    sys.stdout.flush()
    os.read(3, 1)
    os._exit(0)


main()
