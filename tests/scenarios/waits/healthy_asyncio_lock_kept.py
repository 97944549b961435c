# SPDX-License-Identifier: MIT
# expect: none
"""A task holds an asyncio lock from one method to the next, on nobody's stack, while another one waits for it."""
import asyncio


class Session:
    def __init__(self):
        self.lock = asyncio.Lock()

    async def begin(self):
        await self.lock.acquire()

    def end(self):
        self.lock.release()


async def transact(session):
    await session.begin()
    await asyncio.sleep(3600)
    session.end()


async def use(session):
    async with session.lock:
        pass


async def main():
    session = Session()
    tasks = [asyncio.ensure_future(transact(session)), asyncio.ensure_future(use(session))]
    await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.gather(*tasks)


asyncio.run(main())
