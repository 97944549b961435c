# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: transact, transact
"""Two threads of one process at the ends of a unix connection, both in recv()."""
import socket
import threading

one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
started = threading.Barrier(3)


def transact(end):
    started.wait()
    end.recv(1)
    end.send(b".")


threads = [threading.Thread(target=transact, args=(end,), name=name) for end, name in ((one, "one"), (two, "two"))]
for thread in threads:
    thread.start()
started.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
