# SPDX-License-Identifier: MIT
# expect: none
"""A selector and a pair of sockets for every request, all of them closed; some live longer than others."""
import selectors
import socket
import time

open_ones = []
print("ready", flush=True)
number = 0
while True:
    number += 1
    one, other = socket.socketpair()
    selector = selectors.DefaultSelector()
    selector.register(one, selectors.EVENT_READ)
    open_ones.append((selector, one, other))
    if len(open_ones) > 10 + number % 30:
        for request in open_ones:
            for each in request:
                each.close()
        open_ones = []
    time.sleep(0.05)
