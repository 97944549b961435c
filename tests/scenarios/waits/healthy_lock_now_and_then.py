# SPDX-License-Identifier: MIT
# expect: none
"""A lock used as a signal, released by a function that is called only now and then: else nobody is in it."""
import threading
import time

turn = threading.Lock()


def give_turn():
    turn.release()


def tick():
    while True:
        time.sleep(2.5)
        give_turn()


def wait_for_turn():
    turn.acquire()


def serve():
    turn.acquire()
    print("ready", flush=True)
    while True:
        wait_for_turn()


threading.Thread(target=tick, daemon=True).start()
serve()
