# SPDX-License-Identifier: MIT
# expect: self-deadlock|orphaned-lock
# threads: handle
"""A thread takes a Lock twice by bare acquire(), the way out forgot to release it."""
import threading

guard = threading.Lock()


def handle(request):
    guard.acquire()
    if request == "empty":
        return
    guard.release()


def serve():
    handle("empty")
    print("ready", flush=True)
    handle("full")


server = threading.Thread(target=serve, name="server")
server.start()
server.join()
