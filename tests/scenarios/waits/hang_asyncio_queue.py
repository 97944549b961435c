# SPDX-License-Identifier: MIT
# expect: hang|deadlock
# threads: consume
# option: --hang-after 3
"""gather() of consumers whose only producer has failed."""
import asyncio


async def produce(jobs):
    jobs.put_nowait(1)


async def consume(jobs):
    while True:
        await jobs.get()


async def main():
    jobs = asyncio.Queue()
    await produce(jobs)
    consumers = [asyncio.ensure_future(consume(jobs)) for _ in range(2)]
    await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.gather(*consumers)


asyncio.run(main())
