# SPDX-License-Identifier: MIT
# expect: none
"""Tasks in a set that each leaves when it is done."""
import asyncio

background = set()


async def fetch():
    body = bytearray(20000)
    await asyncio.sleep(0.5)
    return len(body)


async def main():
    print("ready", flush=True)
    while True:
        for _ in range(5):
            task = asyncio.get_running_loop().create_task(fetch())
            background.add(task)
            task.add_done_callback(background.discard)
        await asyncio.sleep(0.01)


asyncio.run(main())
