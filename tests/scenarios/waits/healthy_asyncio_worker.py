# SPDX-License-Identifier: MIT
# expect: none
"""A loop whose only task waits for jobs that a thread hands in every three seconds."""
import asyncio
import threading
import time


def feed(loop, jobs):
    while True:
        time.sleep(3)
        loop.call_soon_threadsafe(jobs.put_nowait, 1)


async def main():
    jobs = asyncio.Queue()
    threading.Thread(target=feed, args=(asyncio.get_running_loop(), jobs), daemon=True).start()
    print("ready", flush=True)
    while True:
        await jobs.get()


asyncio.run(main())
