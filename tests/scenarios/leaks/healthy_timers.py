# SPDX-License-Identifier: MIT
# expect: none
"""A time-out for every request, cancelled when the answer is there."""
import asyncio


async def main():
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while True:
        timers = [loop.call_later(3600, print, bytes(2000) + b"%d" % number) for number in range(40)]
        await asyncio.sleep(0.02)
        for timer in timers:
            timer.cancel()


asyncio.run(main())
