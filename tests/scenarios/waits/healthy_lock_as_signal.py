# SPDX-License-Identifier: MIT
# expect: none
"""A lock used as a signal: one thread acquires it, the other one releases it, with a pause of three seconds."""
import threading
import time

turn = threading.Lock()


def give_turn():
    while True:
        time.sleep(3)
        turn.release()


turn.acquire()
threading.Thread(target=give_turn, daemon=True).start()
print("ready", flush=True)
while True:
    turn.acquire()
