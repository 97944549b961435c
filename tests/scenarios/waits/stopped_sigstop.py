# SPDX-License-Identifier: MIT
# expect: stopped
# option: --set stopped.after=3s
"""A process that was stopped in the middle of its work."""
import os
import signal
import threading


def work(queue):
    queue.wait()


threading.Thread(target=work, args=(threading.Event(),), name="worker").start()
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
