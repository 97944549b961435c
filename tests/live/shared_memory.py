# SPDX-License-Identifier: MIT
"""Workers that were forked share their parent's memory until somebody writes it. process_vm_readv makes the kernel copy
each shared page that it reads (since Linux 5.19), so a look at the heaps of a server's workers could take as much memory
as they save: here each command reads a worker of its own, which must not have more memory of its own afterwards."""

import os
import tempfile

import live

PROGRAM = r'''
import os, sys, threading

class Order:
    def __init__(self, i):
        self.number, self.lines, self.name = i, [i], "order %d" % i

def wait(lock):
    with lock:
        os.read(0, 1)

def serve(started):
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=wait, args=(lock,), daemon=True).start()
    os.write(started, b"x")
    os.read(0, 1)

orders = {i: Order(i) for i in range(50000)}
ends, workers = os.pipe(), []
for _ in range(int(sys.stdin.readline())):
    pid = os.fork()
    if not pid:
        serve(ends[1])
        os._exit(0)
    os.read(ends[0], 1)
    workers.append(pid)
print(*workers, flush=True)
os.wait()
'''
OWN_MOST = 128 << 10  # bytes


def own_bytes(pid):
    """Memory of nobody else in mappings without a file: where a file has pages, the first who reads them has them."""
    own, anonymous = 0, False
    with open("/proc/%d/smaps" % pid) as f:
        for words in map(str.split, f):
            if not words[0].endswith(":"):
                anonymous = words[4] == "0"
            elif words[0].startswith("Private_") and anonymous:
                own += int(words[1])
    return own << 10


def commands(folder):
    record = ("-d", "300ms", "-f", "collapsed", "-o", os.path.join(folder, "profile"))
    return (("dump", "--locals"), ("dump", "--native"), ("waits",), ("heap",), ("modules",), ("handles",),
            ("snapshot", "-o", os.path.join(folder, "snapshot")), ("record", "--source", "vm") + record,
            ("watch", "--interval", "100ms", "--duration", "1s"))


def trial(checks, name, command, folder):
    asked = commands(folder)
    with live.Target(command, PROGRAM) as target:
        target.say("%d\n" % len(asked))
        workers = [int(word) for word in target.line().split()]
        checks.that(len(workers) == len(asked), "%s: workers: %s" % (name, workers))
        try:
            for words, pid in zip(asked, workers):
                checks.that(live.wait_at_rest(pid), "%s: worker %d runs" % (name, pid))
                before = own_bytes(pid)
                status, _, err = live.pyspyd(words[0], "--pid", pid, *words[1:])
                more = own_bytes(pid) - before
                where = "%s: %s" % (name, " ".join(words[:2]))
                checks.that(status == 0, "%s: exit %d: %s" % (where, status, err))
                checks.that(more <= OWN_MOST, "%s: the worker has %d KiB more of its own" % (where, more >> 10))
        finally:
            for pid in workers:
                os.kill(pid, 9)


def main():
    checks = live.Checks()
    for name, _, command in live.interpreters():
        with tempfile.TemporaryDirectory() as folder:
            trial(checks, name, command, folder)
    checks.end()


if __name__ == "__main__":
    main()
