# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: transfer, transfer
"""Two tasks take two asyncio locks in opposite order."""
import asyncio


async def transfer(src, dst):
    async with src:
        await asyncio.sleep(0.01)
        async with dst:
            pass


async def main():
    a, b = asyncio.Lock(), asyncio.Lock()
    tasks = [asyncio.ensure_future(transfer(a, b)), asyncio.ensure_future(transfer(b, a))]
    while not (a.locked() and b.locked()):
        await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.gather(*tasks)


asyncio.run(main())
