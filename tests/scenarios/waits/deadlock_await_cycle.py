# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: build, test
"""Two tasks that await each other."""
import asyncio

tasks = {}


async def build():
    await tasks["test"]


async def test():
    await tasks["build"]


async def main():
    tasks["build"] = asyncio.ensure_future(build())
    tasks["test"] = asyncio.ensure_future(test())
    await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.wait(list(tasks.values()))


asyncio.run(main())
