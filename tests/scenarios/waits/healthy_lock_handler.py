# SPDX-License-Identifier: MIT
# expect: none
"""A lock used as a signal, released by a handler when another process sends a signal, every three seconds."""
import os
import signal
import threading
import time

turn = threading.Lock()


def give_turn(number, frame):
    turn.release()


def serve():
    turn.acquire()
    print("ready", flush=True)
    while True:
        turn.acquire()


signal.signal(signal.SIGUSR1, give_turn)
parent = os.getpid()
if not os.fork():
    while os.getppid() == parent:
        time.sleep(3)
        os.kill(parent, signal.SIGUSR1)
    os._exit(0)
serve()
