# SPDX-License-Identifier: MIT
# expect: orphaned-lock|hang
# threads: use, use
# option: --hang-after 3
"""A plain Lock that a thread took by acquire() before it ended."""
import threading

session = threading.Lock()
started = threading.Barrier(3)


def open_session():
    session.acquire()


def use():
    started.wait()
    with session:
        pass


opener = threading.Thread(target=open_session, name="opener")
opener.start()
opener.join()
users = [threading.Thread(target=use, name="user-%d" % n) for n in range(2)]
for user in users:
    user.start()
started.wait()
print("ready", flush=True)
for user in users:
    user.join()
