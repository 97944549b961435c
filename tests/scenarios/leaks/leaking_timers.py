# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: _scheduled
"""A time-out of an hour for every request, and none is cancelled when the answer is there."""
import asyncio


def expire(request):
    return len(request)


async def main():
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    for step in range(13000):
        for number in range(25):
            loop.call_later(3600, expire, b"%d" % (step * 25 + number) + bytes(700))
        await asyncio.sleep(0.01)
    await asyncio.sleep(3600)


asyncio.run(main())
