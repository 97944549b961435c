# SPDX-License-Identifier: MIT
# expect: none
# needs: semaphores
"""An idle ProcessPoolExecutor."""
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor

with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    list(pool.map(abs, range(20)))
    print("ready", flush=True)
    signal.pause()
