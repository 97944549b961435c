# SPDX-License-Identifier: MIT
# expect: event-loop-blocked
# threads: handle
"""A coroutine calls time.sleep(), while others are ready."""
import asyncio
import time


async def heartbeat():
    while True:
        await asyncio.sleep(0.05)


async def handle():
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    time.sleep(3600)


async def main():
    await asyncio.gather(heartbeat(), heartbeat(), handle())


asyncio.run(main())
