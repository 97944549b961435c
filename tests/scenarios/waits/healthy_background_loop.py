# SPDX-License-Identifier: MIT
# expect: none
"""An event loop in a thread of its own, without anything to do; the main thread waits for a signal."""
import asyncio
import signal
import threading


async def nothing():
    pass


loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, name="loop").start()
asyncio.run_coroutine_threadsafe(nothing(), loop).result()
print("ready", flush=True)
signal.pause()
