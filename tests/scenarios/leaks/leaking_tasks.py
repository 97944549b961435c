# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: background
"""Every request starts a task that waits for an answer that never comes; a set keeps them alive."""
import asyncio

background = set()


async def wait_for_answer(answer):
    request = bytearray(2000)
    await answer
    return request


async def main():
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    for _ in range(10000):
        for _ in range(8):
            background.add(loop.create_task(wait_for_answer(loop.create_future())))
        await asyncio.sleep(0.01)
    await asyncio.sleep(3600)


asyncio.run(main())
