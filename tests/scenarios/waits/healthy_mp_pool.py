# SPDX-License-Identifier: MIT
# expect: none
# needs: semaphores
"""An idle multiprocessing.Pool: all workers but one wait for a lock that the one holds, which reads a pipe."""
import multiprocessing
import signal

with multiprocessing.get_context("fork").Pool(3) as pool:
    pool.map(abs, range(50))
    print("ready", flush=True)
    signal.pause()
