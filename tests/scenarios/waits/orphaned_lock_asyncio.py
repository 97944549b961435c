# SPDX-License-Identifier: MIT
# expect: orphaned-lock|hang
# threads: use
# option: --hang-after 3
"""A task waits for an asyncio lock whose holder is done and did not release it."""
import asyncio


async def prepare(lock):
    await lock.acquire()


async def use(lock):
    async with lock:
        pass


async def main():
    lock = asyncio.Lock()
    await asyncio.ensure_future(prepare(lock))
    user = asyncio.ensure_future(use(lock))
    await asyncio.sleep(0)
    print("ready", flush=True)
    await user


asyncio.run(main())
