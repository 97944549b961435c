# SPDX-License-Identifier: MIT
# expect: orphaned-lock
# threads: use
# certainty: proven
"""An RLock whose owner has ended."""
import threading

session = threading.RLock()


def open_session():
    session.acquire()


def use():
    with session:
        pass


opener = threading.Thread(target=open_session, name="opener")
opener.start()
opener.join()
print("ready", flush=True)
use()
