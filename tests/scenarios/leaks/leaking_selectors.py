# SPDX-License-Identifier: MIT
# expect: handle-leak
# certainty: inferred
# says: epoll
"""A selector for every request, none of them closed."""
import selectors
import socket
import time

one, other = socket.socketpair()
selectors_in_use = []


def handle_request():
    selector = selectors.DefaultSelector()
    selector.register(one, selectors.EVENT_READ)
    selector.select(0)
    selectors_in_use.append(selector)


print("ready", flush=True)
for _ in range(6000):
    handle_request()
    time.sleep(0.04)
time.sleep(3600)
