# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: ask_helper, log, help_out
# option: --children
"""A lock and a pipe: the holder waits for a child's answer, the child for the thread that wants the lock."""
import os
import threading

answer_r, answer_w = os.pipe()
line_r, line_w = os.pipe()
lock = threading.Lock()
taken = threading.Event()


def help_out():
    os.close(line_w)
    os.close(answer_r)
    os.read(line_r, 1)
    os.write(answer_w, b"!")


def ask_helper():
    with lock:
        taken.set()
        os.read(answer_r, 1)


def log():
    taken.wait()
    print("ready", flush=True)
    with lock:
        os.write(line_w, b".")


if os.fork() == 0:
    help_out()
else:
    os.close(answer_w)
    os.close(line_r)
    threading.Thread(target=ask_helper, name="asker").start()
    log()
