# SPDX-License-Identifier: MIT
# expect: none
"""A thread takes all signals by sigwait(); the main thread joins it."""
import signal
import threading


def handle_signals():
    while signal.sigwait({signal.SIGHUP, signal.SIGTERM}) != signal.SIGTERM:
        pass


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
thread = threading.Thread(target=handle_signals, name="signals")
thread.start()
print("ready", flush=True)
thread.join()
