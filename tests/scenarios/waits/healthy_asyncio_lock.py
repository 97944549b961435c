# SPDX-License-Identifier: MIT
# expect: none
"""An asyncio lock is held across a sleep, others wait for it."""
import asyncio


async def work(lock):
    while True:
        async with lock:
            await asyncio.sleep(2)


async def main():
    lock = asyncio.Lock()
    print("ready", flush=True)
    await asyncio.gather(*[work(lock) for _ in range(3)])


asyncio.run(main())
