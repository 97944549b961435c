# SPDX-License-Identifier: MIT
# expect: none
"""A loop with callbacks that each block for a twentieth of a second: slow, but it turns."""
import asyncio
import time


async def handle():
    while True:
        time.sleep(0.05)
        await asyncio.sleep(0.01)


async def main():
    print("ready", flush=True)
    await asyncio.gather(*[handle() for _ in range(3)])


asyncio.run(main())
