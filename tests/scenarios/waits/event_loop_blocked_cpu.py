# SPDX-License-Identifier: MIT
# expect: event-loop-blocked
# threads: on_timer
"""A callback computes without end, while tasks are ready."""
import asyncio


async def heartbeat():
    while True:
        await asyncio.sleep(0)


def on_timer():
    print("ready", flush=True)
    n = 1
    while n:
        n = n * 31 % 1000003


async def main():
    asyncio.get_running_loop().call_later(0.1, on_timer)
    await heartbeat()


asyncio.run(main())
