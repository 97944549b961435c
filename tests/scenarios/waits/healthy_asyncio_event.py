# SPDX-License-Identifier: MIT
# expect: none
"""Tasks wait for an Event that another one sets every few seconds."""
import asyncio


async def wait_for(changed):
    while True:
        await changed.wait()
        await asyncio.sleep(0)


async def main():
    changed = asyncio.Event()
    waiters = [asyncio.ensure_future(wait_for(changed)) for _ in range(5)]
    print("ready", flush=True)
    while waiters:
        await asyncio.sleep(3)
        changed.set()
        changed.clear()


asyncio.run(main())
