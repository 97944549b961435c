# SPDX-License-Identifier: MIT
# expect: none
"""A lock used as a signal, released by a Timer that was given the lock's own method: no function of the program does."""
import threading

turn = threading.Lock()


def wait_for_turn():
    turn.acquire()


turn.acquire()
print("ready", flush=True)
while True:
    timer = threading.Timer(2.5, turn.release)
    timer.daemon = True
    timer.start()
    wait_for_turn()
